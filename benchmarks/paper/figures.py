"""The paper's Figures 1 to 3: a pair of panels per corpus, all runs overlaid."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.report import dataset
from benchmarks.paper.results import Results, Run
from benchmarks.paper.values import LINES, Line

SKIPPED = 0.1  # of the run: the steep start, which may exceed the vertical axis
DASHES = {"schedule": "-", "real": "-", "published": (0, (1, 2))}
COLORS = [f"C{number}" for number in range(10)]  # of the default cycle


def draw(results: Results, env: str) -> str:
    """Return the figure of one corpus as SVG, the same for the same numbers."""
    # Fixed salt and no date, so that the same numbers give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "lr-gym", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10.0, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _panel(left, results.runs[env], "val_loss", "validation loss")
        _panel(right, results.runs[env], "train_loss", "training loss")
        figure.suptitle(f"{dataset(env)}, scale {results.scale}")
        handles, labels = left.get_legend_handles_labels()
        place = "outside lower center"
        figure.legend(handles, labels, loc=place, ncols=3, fontsize="small")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _panel(
    axes: Axes, of_lines: Mapping[Line, list[Run]], curve: str, heading: str
) -> None:
    """Draw one loss of every run; lines as published are dotted, on top of cosine."""
    names = list(dict.fromkeys((line.table, line.name) for line in LINES))
    tops, bottoms = [], []
    for line, runs in of_lines.items():
        color = COLORS[names.index((line.table, line.name))]
        for number, run in enumerate(runs):
            iterations, losses = series(run, curve)
            axes.plot(
                iterations,
                losses,
                color=color,
                linestyle=DASHES[line.kind],
                linewidth=2.0 if line.kind == "published" else 1.0,
                alpha=0.8,
                label=line.key if number == 0 else None,
            )
            late = losses[iterations >= SKIPPED * iterations[-1]]
            if not run["metrics"]["diverged"]:
                tops.append(late.max())
                bottoms.append(losses.min())
    if tops:
        margin = 0.05 * (max(tops) - min(bottoms))
        axes.set_ylim(min(bottoms) - margin, max(tops) + margin)
    axes.set_xlabel("iteration")
    axes.set_ylabel(f"{heading}, nats per character")
    axes.grid(alpha=0.3)


def series(run: Run, curve: str) -> tuple[Any, Any]:
    """Return iterations and losses; the training loss has no value at the reset."""
    iterations = np.array(run["curves"]["iteration"])
    losses = np.array(run["curves"][curve], dtype=float)
    return iterations[len(iterations) - len(losses) :], losses
