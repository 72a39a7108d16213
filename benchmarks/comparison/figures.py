"""The figures of a comparison: differences, curves, and quality against budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from benchmarks import estimates
from benchmarks.comparison.curves import WINDOW, band, quality
from benchmarks.comparison.summary import Row, Runs, methods_of, scores, tested_runs
from benchmarks.drawing import (
    COLORS,
    FAINT,
    INK,
    LineStyle,
    draw,
    shortened,
)
from benchmarks.estimates import Estimate, FloatArray
from benchmarks.table_text import estimate_text

CALLS = {
    "better": ("#009E73", "o", "full"),
    "worse": ("#D55E00", "D", "full"),
    "open": (FAINT, "o", "none"),
    "reference": (INK, "s", "full"),
}
WIDE = (9.0, 3.9)  # inches, of a single figure
PANEL = (4.6, 3.0)  # inches, of one of several panels


def line_styles(rows: Sequence[Row]) -> dict[str, LineStyle]:
    """Return the lines of the methods drawn in colour, at most eight, the best first.

    These are the reference, the best method, the best two schedules and agents, the
    best of the other kinds, and the placebo.
    """
    methods = methods_of(rows)
    chosen = [
        *methods[:1],
        *[row for row in methods if row.kind == "schedule"][:2],
        *[row for row in methods if row.kind == "agent"][:2],
        *[row for row in methods if row.kind not in ("schedule", "agent")][:1],
    ]
    placebos = [row for row in rows if row.kind == "placebo"]
    colors = iter(COLORS)
    styles = {}
    for row in rows:
        if row.call == "reference":
            styles[row.label] = LineStyle(INK)
        elif row in placebos[:1]:
            styles[row.label] = LineStyle(FAINT, dashed=True)
        elif row in chosen:
            styles[row.label] = LineStyle(next(colors))
    return styles


def limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the range of the axis of differences.

    It holds every negative difference, and positive ones up to four times the median:
    methods that diverged lie far beyond.
    """
    gaps = [row.difference for row in methods_of(rows) if row.difference is not None]
    typical = float(np.median([abs(gap.value) for gap in gaps])) if gaps else 0.0
    left = min([0.0, *(gap.value if gap.low is None else gap.low for gap in gaps)])
    largest = max([0.0, *(gap.value if gap.high is None else gap.high for gap in gaps)])
    right = min(largest, max(4.0 * typical, -left))
    margin = max(0.05 * (right - left), 1e-4)
    return left - margin, right + margin


def forest(rows: Sequence[Row]) -> str:
    """Draw every row's difference to the reference, with its 95 % interval."""
    methods = methods_of(rows)
    others = [row for row in rows if row not in methods]
    lines: list[Row | None] = [*methods, *([None, *others] if others else [])]
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
    """Draw a point and its interval; an arrow marks an interval cut at the limit."""
    gap = row.difference or Estimate(0.0, None, None)
    color, marker, fill = CALLS[row.call]
    low = gap.value if gap.low is None else gap.low
    high = gap.value if gap.high is None else gap.high
    if y % 2 == 0:
        axes.axhspan(y - 0.5, y + 0.5, color=INK, alpha=0.035, lw=0)
    start, end = np.clip((low, high), *limits)
    axes.hlines(y, start, end, color=color, lw=1.6, alpha=0.8)
    if high > limits[1]:
        axes.plot(limits[1], y, ">", color=color, ms=5, clip_on=False)
    if gap.value <= limits[1]:
        style: dict[str, Any] = {"color": color, "ms": 5, "mew": 1.4, "fillstyle": fill}
        axes.plot(gap.value, y, marker, **style)


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
    """Return rows with their line styles: thin and grey, or on top and in colour."""
    chosen = line_styles(rows)
    thin = {"color": FAINT, "lw": 0.8, "alpha": 0.45}
    background = [(row, thin) for row in methods_of(rows) if row.label not in chosen]
    front = [(row, _line(chosen[row.label])) for row in rows if row.label in chosen]
    return background + front[::-1]  # the best on top


def _line(style: LineStyle) -> dict[str, Any]:
    return {"color": style.color, "ls": "--" if style.dashed else "-"}


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
    """Set the vertical axis; the worst quarter of the lines may exceed it."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()]
    if not lines:
        return
    low = min(float(np.nanmin(line)) for line in lines)
    high = max(float(np.quantile(tops, 0.75)), low + 1e-3)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def losses(rows: Sequence[Row], runs: Runs, task: str) -> str:
    """Draw the validation loss of the methods in colour over iterations."""
    paint = partial(_paint_losses, styles=_lines(rows), runs=runs, task=task)
    return draw(f"Validation loss, {task}", PANEL, paint)


def rates(rows: Sequence[Row], runs: Runs, task: str) -> str:
    """Draw the learning rate of the methods in colour over iterations."""
    paint = partial(_paint_rates, styles=_lines(rows), runs=runs, task=task)
    return draw(f"Learning rate, {task}", PANEL, paint)


def _lines(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    chosen = line_styles(rows)
    return {label: _line(chosen[label]) for label in reversed(chosen)}


def _paint_losses(
    axes: Axes, styles: Mapping[str, dict[str, Any]], runs: Runs, task: str
) -> None:
    tops = []
    for label, style in styles.items():
        iterations, quartiles = band(runs[label][task], "val_loss")
        # Every loss falls steeply in the first tenth, which would fill the figure.
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
    axes.set_ylim(max(bottom, min(peaks) / 300.0), top)  # some decay to zero
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
    """Return an SVG file with a panel of the loss and one of the learning rate.

    Args:
        records: The records of a comparison; its first task is drawn.
        labels: The methods to draw, at most six, in the order of the legend.

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
