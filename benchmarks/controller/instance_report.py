"""Statistics, tables and a figure of the runs of `instance_jobs.py`.

A regret is the final validation loss of a run minus that of the schedule tuned for its
instance, on the same seed, in nats per character; lower is better. If a method ignores
the instance's learning rate, all instances of a cell share its runs. The intervals
resample every instance separately, so they are slightly too narrow for such methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from benchmarks import estimates
from benchmarks.comparison.jobs import env_name
from benchmarks.comparison.protocol import Records
from benchmarks.controller.instance_jobs import (
    ONE_SETTING,
    TUNED,
    ListedInstance,
    Suite,
)
from benchmarks.drawing import COLORS, FAINT, INK, draw
from benchmarks.estimates import Estimate, FloatArray, Scores
from benchmarks.results_file import write_result
from benchmarks.table_text import csv_text, estimate_text, markdown
from lr_gym.files import write_text

GOAL_IQM = 0.01  # nats of regret, the interquartile mean over all runs
GOAL_WORST = 0.03  # the mean of the worst tenth
FIGURE_METHODS = ("ramp_and_undo", "wsd", "plateau", ONE_SETTING, "schedule_free")
LINEAR_BELOW = 0.003  # nats; the axes of the figure are logarithmic above
TICKS = (-0.1, -0.01, 0.0, 0.01, 0.1, 1.0, 10.0)

Line = Mapping[str, Any]


def instance_name(instance: ListedInstance) -> str:
    """Return a unique name of an instance."""
    words = [env_name(instance.corpus)]
    if instance.architecture != "gpt":
        words.append(instance.architecture)
    words += [f"{instance.n_layer}x{instance.n_embd}", f"b{instance.batch_size}"]
    text = f"{' '.join(words)} {instance.max_iters} its, LR x {instance.lr_factor:.3g}"
    if instance.evaluations is not None:
        text += f", {instance.evaluations} evaluations"
    return text


def run_lines(suite: Suite, done: Records) -> list[dict[str, Any]]:
    """Return one line per method, instance and seed: the data of all statistics."""
    seeds = suite.protocol.test_seeds
    lines = []
    for entry in suite.entries(done):
        runs = done[entry.job.file_name]["runs"]
        for number, instance in enumerate(entry.cell.instances):
            first = number * len(seeds) if entry.by_instance else 0
            for run in runs[first : first + len(seeds)]:
                lines.append(
                    {
                        "label": entry.label,
                        "instance": instance_name(instance),
                        "lr_factor": instance.lr_factor,
                        "seed": run["seed"],
                        "learning_rate": run["learning_rate"],
                        "final_val_loss": run["metrics"]["final_val_loss"],
                        "test_loss": run["metrics"]["test_loss"],
                        "diverged": run["metrics"]["diverged"],
                    }
                )
    return lines


def losses(lines: Sequence[Line]) -> dict[str, dict[str, FloatArray]]:
    """Return method -> instance -> final validation losses, (seeds,)."""
    table: dict[str, dict[str, list[float]]] = {}
    for line in sorted(lines, key=lambda line: int(line["seed"])):
        by_instance = table.setdefault(line["label"], {})
        by_instance.setdefault(line["instance"], []).append(line["final_val_loss"])
    return {
        label: {name: np.array(values) for name, values in by_instance.items()}
        for label, by_instance in table.items()
    }


def worst_tenth(scores: Scores) -> Estimate:
    """Return the mean over the worst tenth of the runs of all instances."""

    def statistic(*samples: FloatArray, axis: int = -1) -> FloatArray:
        pooled = np.sort(np.concatenate(samples, axis=axis), axis=axis)
        count = -(-pooled.shape[axis] // 10)
        return np.asarray(np.take(pooled, range(-count, 0), axis).mean(axis=axis))

    return estimates.bootstrap(list(scores.values()), statistic)


def judge(lines: Sequence[Line], controller: str) -> dict[str, Any]:
    """Return the regrets of all methods, and which goals `controller` reaches.

    Returns:
        ``rows``: per method its regret (interquartile mean and worst tenth, with 95 %
        intervals), its share of diverged runs, and the probability that a run of the
        controller beats one of its runs; the lowest regret first. ``goals``: whether
        the controller reaches each.
    """
    table = losses(lines)
    rows: list[dict[str, Any]] = []
    for label, scores in table.items():
        regret = estimates.differences(scores, table[TUNED])
        diverged = [line["diverged"] for line in lines if line["label"] == label]
        is_rival = label != controller
        beats = estimates.improvement(table[controller], scores) if is_rival else None
        rows.append(
            {
                "label": label,
                "regret": vars(estimates.pooled_iqm(regret)),
                "worst_tenth": vars(worst_tenth(regret)),
                "diverged": float(np.mean(diverged)),
                "controller_beats_it": None if beats is None else vars(beats),
            }
        )
    rows.sort(key=lambda row: float(row["regret"]["value"]))
    ours = next(row for row in rows if row["label"] == controller)
    rivals = [row for row in rows if row["label"] not in (controller, TUNED)]
    return {
        "rows": rows,
        "goals": {
            f"regret at most {GOAL_IQM}": ours["regret"]["value"] <= GOAL_IQM,
            f"worst tenth at most {GOAL_WORST}": ours["worst_tenth"]["value"]
            <= GOAL_WORST,
            "no divergence": ours["diverged"] == 0.0,
            "better than": [r["label"] for r in rivals if _beaten(r)],
            "not shown to be better than": [
                r["label"] for r in rivals if not _beaten(r)
            ],
        },
    }


def _beaten(row: Mapping[str, Any]) -> bool:
    """Whether the interval of the probability of improvement is above one half."""
    low = row["controller_beats_it"]["low"]
    return low is not None and low > 0.5


def write_results(
    folder: Path, result: Mapping[str, Any], lines: Sequence[Line]
) -> dict[str, Any]:
    """Write tuning_free.json, .csv (per instance), .svg, runs.csv; print the tables.

    Returns:
        The content of tuning_free.json.
    """
    written = write_result(folder / "tuning_free.json", result)
    write_text(folder / "tuning_free.csv", csv_text(instance_rows(lines)))
    write_text(folder / "runs.csv", csv_text(lines))
    names = tuple(result["controllers"])
    write_text(folder / "tuning_free.svg", figure(lines, names))
    for name, judged in result["controllers"].items():
        print(f"\n{name}, {len(result['instances'])} instances\n")
        print(f"{judged_table(judged)}\n\n{goals_text(judged)}")
    return written


def instance_rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return per instance the interquartile mean of each method's final losses."""
    table = losses(lines)
    return [
        {
            "instance": name,
            **{
                label: float(estimates.iqm(by_instance[name]))
                for label, by_instance in table.items()
            },
        }
        for name in table[TUNED]
    ]


def judged_table(judged: Mapping[str, Any]) -> str:
    """Return the rows of `judge` as a Markdown table."""
    return markdown([_judged_row(row) for row in judged["rows"]])


def goals_text(judged: Mapping[str, Any]) -> str:
    """Return a line of Markdown per goal: whether it was reached."""
    lines = []
    for goal, reached in judged["goals"].items():
        if isinstance(reached, bool):
            shown = "yes" if reached else "no"
        else:
            shown = ", ".join(map(short, reached)) or "none"
        lines.append(f"- {goal}: {shown}")
    return "\n".join(lines)


def short(label: str) -> str:
    """Return a label as it is shown; a path without all folders but the last."""
    return "/".join(Path(label).parts[-2:])


def _judged_row(row: Mapping[str, Any]) -> dict[str, str]:
    beats = row["controller_beats_it"]
    return {
        "method": short(row["label"]),
        "regret": estimate_text(Estimate(**row["regret"])),
        "worst tenth": estimate_text(Estimate(**row["worst_tenth"])),
        "diverged": f"{row['diverged']:.0%}",
        "P(controller beats it)": (
            estimate_text(Estimate(**beats), ".2f") if beats else ""
        ),
    }


# ------------------------------------------------------------------------- the figure


def figure(lines: Sequence[Line], controllers: Sequence[str]) -> str:
    """Return an SVG file: regret by initial LR, and its distribution over runs."""
    labels = list(dict.fromkeys((*controllers, *FIGURE_METHODS)))[: len(COLORS)]
    table = losses(lines)
    styles: dict[str, dict[str, Any]] = {
        label: {"color": color, "lw": 2.2 if label in controllers else 1.3}
        for label, color in zip(labels, COLORS, strict=False)
        if label in table
    }
    regrets = {
        label: estimates.differences(table[label], table[TUNED]) for label in styles
    }
    factors = {line["instance"]: float(line["lr_factor"]) for line in lines}

    def with_legend(axes: Axes) -> None:
        _paint_distribution(axes, regrets, styles)
        place = "outside right upper"
        names = [short(label) for label in styles]
        axes.figure.legend(axes.get_lines(), names, loc=place, frameon=False)

    by_factor = partial(_paint_factors, regrets=regrets, styles=styles, factors=factors)
    svg = draw("Regret to tuned schedules", (10.5, 3.6), by_factor, with_legend)
    return svg.replace("currentColor", FAINT) + "\n"


def _paint_factors(
    axes: Axes,
    regrets: Mapping[str, Scores],
    styles: Mapping[str, dict[str, Any]],
    factors: Mapping[str, float],
) -> None:
    distinct = sorted(set(factors.values()))
    for label, style in styles.items():
        columns = [
            np.concatenate(
                [
                    values
                    for name, values in regrets[label].items()
                    if factors[name] == f
                ]
            )
            for f in distinct
        ]
        low, middle, high = np.array(
            [np.quantile(column, (0.25, 0.5, 0.75)) for column in columns]
        ).T
        axes.plot(distinct, middle, marker="o", ms=3, **style)
        axes.fill_between(distinct, low, high, color=style["color"], alpha=0.12, lw=0)
    axes.axhline(0.0, color=INK, lw=0.8, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=LINEAR_BELOW)
    _label_regrets(axes.yaxis)
    axes.xaxis.set_major_locator(FixedLocator(distinct))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{f:.2g}" for f in distinct]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("initial rate over a good one")
    axes.set_ylabel("regret, nats per character")


def _label_regrets(axis: Axis) -> None:
    """Write the ticks as plain numbers."""
    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in TICKS]))
    axis.set_minor_locator(NullLocator())


def _paint_distribution(
    axes: Axes, regrets: Mapping[str, Scores], styles: Mapping[str, dict[str, Any]]
) -> None:
    thresholds = np.unique(
        np.concatenate([v for scores in regrets.values() for v in scores.values()])
    )
    for label, style in styles.items():
        share = estimates.profile(regrets[label], thresholds)
        axes.plot(thresholds, share, drawstyle="steps-post", **style)
    axes.axvline(0.0, color=INK, lw=0.8, zorder=1)
    axes.set_xscale("symlog", linthresh=LINEAR_BELOW)
    _label_regrets(axes.xaxis)
    axes.set_xlabel("regret at most, nats per character")
    axes.set_ylabel("share of runs")
