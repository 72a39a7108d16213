"""The pictures of a comparison: how far from the reference, when, for how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import comb
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from benchmarks import estimates
from benchmarks.comparison.drawing import (
    COLORS,
    FAINT,
    INK,
    LineStyle,
    draw,
    looks,
    methods_of,
    shortened,
)
from benchmarks.comparison.summary import (
    Row,
    Runs,
    label_of,
    scores,
    task_of,
    tested_runs,
)
from benchmarks.estimates import Estimate, FloatArray
from benchmarks.table_text import estimate_text

CALLS = {
    "better": ("#009E73", "o", "full"),
    "worse": ("#D55E00", "D", "full"),
    "open": (FAINT, "o", "none"),
    "reference": (INK, "s", "full"),
}
WIDE = (9.0, 3.9)  # inches, of one alone
PANEL = (4.6, 3.0)  # inches, of one of several side by side
WINDOW = 8  # training episodes that a learner's quality is the mean of


def limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the differences to draw: every gain, and losses up to four times typical.

    Beyond that is who diverged, and would press all others together.
    """
    found = [row.difference for row in methods_of(rows) if row.difference is not None]
    typical = float(np.median([abs(e.value) for e in found])) if found else 0.0
    left = min([0.0, *(e.value if e.low is None else e.low for e in found)])
    furthest = max([0.0, *(e.value if e.high is None else e.high for e in found)])
    right = min(furthest, max(4.0 * typical, -left))
    margin = max(0.05 * (right - left), 1e-4)
    return left - margin, right + margin


def forest(rows: Sequence[Row]) -> str:
    """Draw every row's difference to the reference, with its 95 % interval."""
    own = methods_of(rows)
    rest = [row for row in rows if row not in own]
    lines: list[Row | None] = [*own, *([None, *rest] if rest else [])]
    paint = partial(_paint_forest, lines=lines, limits=limits(rows))
    return draw(
        "Difference to the reference", (WIDE[0], 0.7 + 0.22 * len(lines)), paint
    )


def _paint_forest(
    axes: Axes, lines: Sequence[Row | None], limits: tuple[float, float]
) -> None:
    beside = axes.get_yaxis_transform()
    for y, row in enumerate(lines):
        if row is not None:
            _paint_estimate(axes, y, row, limits)
            gap = estimate_text(row.difference) if row.difference else "reference"
            axes.text(1.03, y, gap, transform=beside, va="center", fontsize=8)
    axes.axvline(0.0, color=INK, lw=0.9, zorder=1)
    names = [shortened(row.label) if row else "controls, placebo" for row in lines]
    axes.set_yticks(range(len(lines)), names)
    for tick, row in zip(axes.get_yticklabels(), lines, strict=True):
        if row is None:
            tick.set(fontstyle="italic", alpha=0.7)
        elif row.kind == "agent":
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel("difference in test loss, nats per character: lower is better")


def _paint_estimate(axes: Axes, y: int, row: Row, limits: tuple[float, float]) -> None:
    """Draw a point and its interval; an arrow at the limit stands for what is cut."""
    found = row.difference or Estimate(0.0, None, None)
    color, marker, fill = CALLS[row.call]
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    if y % 2 == 0:
        axes.axhspan(y - 0.5, y + 0.5, color=INK, alpha=0.035, lw=0)
    start, end = np.clip((low, high), *limits)
    axes.hlines(y, start, end, color=color, lw=1.6, alpha=0.8)
    if high > limits[1]:
        axes.plot(limits[1], y, ">", color=color, ms=5, clip_on=False)
    if found.value <= limits[1]:
        look: dict[str, Any] = {"color": color, "ms": 5, "mew": 1.4, "fillstyle": fill}
        axes.plot(found.value, y, marker, **look)


def profiles(rows: Sequence[Row], runs: Runs) -> str:
    """Draw, per method, the share of runs within a difference to the reference."""
    reference = next(row.label for row in rows if row.call == "reference")
    losses = {label: scores(tasks, "test_loss") for label, tasks in runs.items()}
    left, right = limits(rows)

    def paint(axes: Axes) -> None:
        for row, style in _styles(rows):
            pairs = estimates.differences(losses[row.label], losses[reference])
            thresholds = np.unique([left, right, *np.concatenate([*pairs.values()])])
            share = estimates.profile(pairs, thresholds)
            axes.plot(thresholds, share, drawstyle="steps-post", **style)
        axes.set_xlim(left, right)
        axes.set_ylim(0.0, 1.02)
        axes.set_xlabel(f"difference to {shortened(reference)}, seed by seed, nats")
        axes.set_ylabel("share of runs at or below")

    return draw("Performance profiles", WIDE, paint)


def _styles(rows: Sequence[Row]) -> list[tuple[Row, dict[str, Any]]]:
    """Return rows and how they are drawn: thin grey, and above it those in colour."""
    chosen = looks(rows)
    thin = {"color": FAINT, "lw": 0.8, "alpha": 0.45}
    background = [(row, thin) for row in methods_of(rows) if row.label not in chosen]
    front = [(row, _line(chosen[row.label])) for row in rows if row.label in chosen]
    return background + front[::-1]  # the best on top


def _line(look: LineStyle) -> dict[str, Any]:
    return {"color": look.color, "ls": "--" if look.dashed else "-"}


def expected_best(losses: Sequence[float]) -> list[float]:
    """Return the expected lowest of k losses drawn without replacement, for every k.

    Of n sorted losses the i-th (from 0) is the lowest of k in C(n - 1 - i, k - 1) of
    the C(n, k) subsets.
    """
    n = len(losses)
    ordered = sorted(losses)
    return [
        sum(x * comb(n - 1 - i, k - 1) for i, x in enumerate(ordered)) / comb(n, k)
        for k in range(1, n + 1)
    ]


def quality(
    row: Row, records: Sequence[Mapping[str, Any]], task: str
) -> tuple[list[float], list[float]]:
    """Return trainings spent, and the validation loss that they buy `row`.

    Of a tuned method: of the best of as many random peaks as they pay for, on average.
    Of a search: the lowest so far. Of a learner: the mean of its last `WINDOW` training
    episodes. Searches and learners are averaged over replicates.
    """
    own = [r for r in records if label_of(r["job"]) == row.label]
    own = [r for r in own if task_of(r["job"]) == task]
    tuning = [r for r in own if r["job"]["phase"] == "tune"]
    if tuning:
        found: dict[float, list[float]] = {}
        for run in (run for record in tuning for run in record["runs"]):
            loss = run["metrics"]["final_val_loss"]
            found.setdefault(run["learning_rate"], []).append(loss)
        cost = sum(record["trainings"] for record in tuning) / len(found)
        best = expected_best([float(np.mean(losses)) for losses in found.values()])
        return [cost * k for k in range(1, len(best) + 1)], best
    histories = [r["history"] for r in own if r["job"]["phase"] == "learn"]
    shortest = min(map(len, histories), default=0)
    if shortest == 0:
        return [], []
    losses = np.array([history[:shortest] for history in histories])
    if row.kind == "search":
        lines = np.minimum.accumulate(losses, axis=1)
    else:
        width = min(WINDOW, shortest)
        sums = np.lib.stride_tricks.sliding_window_view(losses, width, axis=1)
        lines = sums.mean(axis=-1)
    spent = range(shortest - lines.shape[1] + 1, shortest + 1)
    return list(map(float, spent)), lines.mean(axis=0).tolist()


def budgets(
    rows: Sequence[Row],
    records: Sequence[Mapping[str, Any]],
    task: str,
    size: tuple[float, float] = PANEL,
) -> str:
    """Draw quality against trainings spent on tuning or learning."""

    def paint(axes: Axes) -> None:
        tops = []
        for row, style in _styles(rows):
            spent, losses = quality(row, records, task)
            if losses:
                marker = "o" if len(losses) < WINDOW else ""
                axes.plot(spent, losses, marker=marker, ms=3, **style)
                tops.append(losses[min(len(losses) - 1, len(losses) // 4)])
        _leave_out(axes, tops)
        axes.set_xlim(left=0.0)
        axes.set_xlabel("trainings spent")
        axes.set_ylabel("validation loss, nats per character")

    return draw(f"Quality against budget, {task}", size, paint)


def _leave_out(axes: Axes, tops: Sequence[float]) -> None:
    """Set the vertical axis so that the worst quarter of lines may leave it."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()]
    if not lines:
        return
    low = min(float(np.nanmin(line)) for line in lines)
    high = max(float(np.quantile(tops, 0.75)), low + 1e-3)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def band(runs: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], FloatArray]:
    """Return iterations, and quartiles over runs of the column `key`, (3, steps).

    A diverged run ends early: it keeps its last loss, and has no learning rate.
    """
    longest = max((run["curves"]["iteration"] for run in runs), key=len)
    iterations = longest[len(longest) - max(len(r["curves"][key]) for r in runs) :]
    columns: list[list[float]] = [[] for _ in iterations]
    for run in runs:
        values = run["curves"][key]
        missing = len(iterations) - len(values) if key != "optimizer_lr" else 0
        whole = [*values, *values[-1:] * missing]
        for column, value in zip(columns, whole, strict=False):
            column.append(value)
    return iterations, np.array([np.quantile(c, (0.25, 0.5, 0.75)) for c in columns]).T


def losses(rows: Sequence[Row], runs: Runs, task: str) -> str:
    """Draw the validation loss along the run, of who is in colour."""
    paint = partial(_paint_losses, styles=_lines(rows), runs=runs, task=task)
    return draw(f"Validation loss, {task}", PANEL, paint)


def rates(rows: Sequence[Row], runs: Runs, task: str) -> str:
    """Draw the learning rate along the run, of who is in colour."""
    paint = partial(_paint_rates, styles=_lines(rows), runs=runs, task=task)
    return draw(f"Learning rate, {task}", PANEL, paint)


def _lines(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    chosen = looks(rows)
    return {label: _line(chosen[label]) for label in reversed(chosen)}


def _paint_losses(
    axes: Axes, styles: Mapping[str, dict[str, Any]], runs: Runs, task: str
) -> None:
    tops = []
    for label, style in styles.items():
        iterations, quartiles = band(runs[label][task], "val_loss")
        # The first tenth is a cliff in every loss, and would be all of the picture.
        first = next(i for i, x in enumerate(iterations) if x >= iterations[-1] / 10)
        _paint_band(axes, iterations[first:], quartiles[:, first:], style)
        tops.append(float(quartiles[1, first]))
    _leave_out(axes, tops)
    axes.set_xlabel("iteration")
    axes.set_ylabel("validation loss, nats per character")


def _paint_rates(
    axes: Axes, styles: Mapping[str, dict[str, Any]], runs: Runs, task: str
) -> None:
    peaks = []
    for label, style in styles.items():
        iterations, quartiles = band(runs[label][task], "optimizer_lr")
        _paint_band(axes, iterations, np.where(quartiles > 0, quartiles, np.nan), style)
        peaks.append(float(quartiles[1].max()))
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, min(peaks) / 300.0), top)  # what decays to zero leaves
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("iteration")
    axes.set_ylabel("learning rate in the optimizer")


def _paint_band(
    axes: Axes, x: Sequence[int], quartiles: FloatArray, style: dict[str, Any]
) -> None:
    low, middle, high = quartiles
    axes.plot(x, middle, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.13, lw=0)


def draw_episodes(records: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    """Return an SVG file of loss and learning rate, side by side, on one task.

    Args:
        records: Of one comparison; its first task is drawn.
        labels: Whom to draw, at most six, in the order of the legend.

    Raises:
        ValueError: There are more labels than colours.
    """
    if len(labels) > len(COLORS):
        raise ValueError(f"at most {len(COLORS)} labels can be drawn, got {labels}")
    runs = tested_runs(records)
    task = next(iter(runs[labels[0]]))
    pairs = zip(labels, COLORS, strict=False)
    styles = {label: {"color": color} for label, color in pairs}

    def with_legend(axes: Axes) -> None:
        _paint_rates(axes, styles, runs, task)
        place = "outside right upper"
        axes.figure.legend(axes.get_lines(), list(styles), loc=place, frameon=False)

    losses = partial(_paint_losses, styles=styles, runs=runs, task=task)
    title = f"Validation loss and learning rate, {task}"
    svg = draw(title, (10.0, 3.6), losses, with_legend)
    return svg.replace("currentColor", FAINT) + "\n"
