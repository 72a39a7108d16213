"""From the runs of `instance_jobs.py` to numbers, tables and a figure.

A regret is a run's final validation loss minus that of the schedule tuned for its
instance, on the same seed; nats per character, lower is better. Where a label does not
start from an instance's own rate, all instances of a cell share its runs; intervals
resample every instance on its own, and so are a little narrower than they should be.
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
from benchmarks.comparison.drawing import COLORS, FAINT, INK, draw
from benchmarks.comparison.protocol import Records
from benchmarks.controller.instance_jobs import ONE_SETTING, TUNED, Suite
from benchmarks.estimates import Estimate, FloatArray, Scores
from benchmarks.results_file import write_result
from benchmarks.table_text import csv_text, estimate_text, markdown
from lr_gym.files import write_text
from lr_gym.mdp.instances import Instance

GOAL_IQM = 0.01  # nats of regret, the interquartile mean over all runs
GOAL_WORST = 0.03  # the mean of the worst tenth
SHOWN = ("ramp_and_undo", "wsd", "plateau", ONE_SETTING, "schedule_free")
FLOOR = 0.003  # nats: the figure's axis is linear below, logarithmic above
TICKS = (-0.1, -0.01, 0.0, 0.01, 0.1, 1.0, 10.0)

Line = Mapping[str, Any]


def instance_name(instance: Instance) -> str:
    """Return a name that tells instances apart."""
    size = f"{instance.n_layer}x{instance.n_embd} b{instance.batch_size}"
    return (
        f"{instance.corpus} {size} {instance.max_iters} its, "
        f"LR x {instance.lr_factor:.3g}"
    )


def run_lines(suite: Suite, done: Records) -> list[dict[str, Any]]:
    """Return one line per label, instance and seed: all that statistics are made of."""
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
    """Return label -> instance -> final validation losses, in the order of seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in sorted(lines, key=lambda line: int(line["seed"])):
        by_instance = found.setdefault(line["label"], {})
        by_instance.setdefault(line["instance"], []).append(line["final_val_loss"])
    return {
        label: {name: np.array(values) for name, values in by_instance.items()}
        for label, by_instance in found.items()
    }


def worst_tenth(scores: Scores) -> Estimate:
    """Return the mean over the worst tenth of all instances' runs."""

    def statistic(*samples: FloatArray, axis: int = -1) -> FloatArray:
        together = np.sort(np.concatenate(samples, axis=axis), axis=axis)
        count = -(-together.shape[axis] // 10)
        return np.asarray(np.take(together, range(-count, 0), axis).mean(axis=axis))

    return estimates.bootstrap(list(scores.values()), statistic)


def judge(lines: Sequence[Line], controller: str) -> dict[str, Any]:
    """Return what `controller` comes to, beside every other label.

    Returns:
        ``rows``: per label its regret (interquartile mean and worst tenth, with 95 %
        intervals), share of diverged runs, and the probability that a run of the
        controller beats one of it; the lowest regret first. ``goals``: whether each
        was reached.
    """
    table = losses(lines)
    rows: list[dict[str, Any]] = []
    for label, own in table.items():
        regret = estimates.differences(own, table[TUNED])
        diverged = [line["diverged"] for line in lines if line["label"] == label]
        is_rival = label != controller
        beats = estimates.improvement(table[controller], own) if is_rival else None
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
    judged = next(row for row in rows if row["label"] == controller)
    rivals = [row for row in rows if row["label"] not in (controller, TUNED)]
    return {
        "rows": rows,
        "goals": {
            f"regret at most {GOAL_IQM}": judged["regret"]["value"] <= GOAL_IQM,
            f"worst tenth at most {GOAL_WORST}": judged["worst_tenth"]["value"]
            <= GOAL_WORST,
            "no divergence": judged["diverged"] == 0.0,
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
    """Return per instance every label's interquartile mean of the final losses."""
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
    """Return what `judge` found as a Markdown table."""
    return markdown([_text(row) for row in judged["rows"]])


def goals_text(judged: Mapping[str, Any]) -> str:
    """Return which goals were reached, one a line of Markdown."""
    lines = []
    for goal, reached in judged["goals"].items():
        if isinstance(reached, bool):
            shown = "yes" if reached else "no"
        else:
            shown = ", ".join(map(short, reached)) or "none"
        lines.append(f"- {goal}: {shown}")
    return "\n".join(lines)


def short(label: str) -> str:
    """Return a label as it is shown: of a file's path, the last folder and the name."""
    return "/".join(Path(label).parts[-2:])


def _text(row: Mapping[str, Any]) -> dict[str, str]:
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
    """Return an SVG file: regret by wrong rate, and its distribution over runs."""
    chosen = list(dict.fromkeys((*controllers, *SHOWN)))[: len(COLORS)]
    table = losses(lines)
    styles: dict[str, dict[str, Any]] = {
        label: {"color": color, "lw": 2.2 if label in controllers else 1.3}
        for label, color in zip(chosen, COLORS, strict=False)
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
    wrong = sorted(set(factors.values()))
    for label, style in styles.items():
        columns = [
            np.concatenate(
                [
                    values
                    for name, values in regrets[label].items()
                    if factors[name] == f
                ]
            )
            for f in wrong
        ]
        low, middle, high = np.array(
            [np.quantile(column, (0.25, 0.5, 0.75)) for column in columns]
        ).T
        axes.plot(wrong, middle, marker="o", ms=3, **style)
        axes.fill_between(wrong, low, high, color=style["color"], alpha=0.12, lw=0)
    axes.axhline(0.0, color=INK, lw=0.8, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=FLOOR)
    _label_regrets(axes.yaxis)
    axes.xaxis.set_major_locator(FixedLocator(wrong))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{f:.2g}" for f in wrong]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("initial rate over a good one")
    axes.set_ylabel("regret, nats per character")


def _label_regrets(axis: Axis) -> None:
    """Mark powers of ten in plain figures."""
    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in TICKS]))
    axis.set_minor_locator(NullLocator())


def _paint_distribution(
    axes: Axes, regrets: Mapping[str, Scores], styles: Mapping[str, dict[str, Any]]
) -> None:
    everything = np.unique(
        np.concatenate([v for scores in regrets.values() for v in scores.values()])
    )
    for label, style in styles.items():
        share = estimates.profile(regrets[label], everything)
        axes.plot(everything, share, drawstyle="steps-post", **style)
    axes.axvline(0.0, color=INK, lw=0.8, zorder=1)
    axes.set_xscale("symlog", linthresh=FLOOR)
    _label_regrets(axes.xaxis)
    axes.set_xlabel("regret at most, nats per character")
    axes.set_ylabel("share of runs")
