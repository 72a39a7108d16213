"""The figure of a law: predicted and real loss curves, a panel per kind of run."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.drawing import COLORS, STYLE
from lr_gym.surrogate.runs import RecordedRun
from lr_gym.trainers.base import FloatArray

INK, PAPER = "#222222", "#ffffff"


def draw_curves(title: str, runs: Sequence[RecordedRun], predicted: FloatArray) -> str:
    """Return an SVG figure: real losses as dots, predicted losses as lines.

    Args:
        title: The title above the panels.
        runs: Each has the colour of its peak and the panel of its name's first word.
        predicted: Losses at the runs' evaluations but the first, (R, m - 1).
    """
    kinds = list(dict.fromkeys(run.name.split()[0] for run in runs))
    rates = sorted({run.name.split()[-1] for run in runs}, key=float)
    colors = dict(zip(rates, np.resize(COLORS, len(rates)), strict=True))
    style = STYLE | dict.fromkeys(
        (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        INK,
    )
    style |= {"figure.facecolor": PAPER, "svg.hashsalt": title}
    with rc_context(style):
        figure = Figure(figsize=(2.9 * len(kinds), 3.4), layout="constrained")
        panels: list[Axes] = list(
            figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        )
        late = np.asarray(runs[0].iterations)[1:] > runs[0].iterations[-1] / 12
        for run, guess in zip(runs, predicted, strict=True):
            kind, rate = run.name.split()[0], run.name.split()[-1]
            axes = panels[kinds.index(kind)]
            points = np.asarray(run.iterations)[1:][late]
            color = str(colors[rate])
            axes.plot(
                points, guess[late], color=color, lw=1.4, label=f"{float(rate):g}"
            )
            axes.plot(points, run.val_loss[1:][late], ".", color=color, ms=4)
        for kind, axes in zip(kinds, panels, strict=True):
            axes.set_title(kind.replace("_", " "))
            axes.set_xlabel("iteration")
        real = np.stack([run.val_loss[1:][late] for run in runs])
        low, high = np.nanmin(real), np.nanquantile(real, 0.97)
        panels[0].set_ylim(low - 0.05 * (high - low), high)
        panels[0].set_ylabel("validation loss, nats per character")
        panels[-1].legend(title="peak rate", frameon=False, fontsize=8)
        figure.suptitle(f"{title} (lines: law, dots: training)", fontsize=10)
        text = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(text, metadata=no_metadata)
    return text.getvalue()
