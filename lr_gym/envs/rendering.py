"""An episode so far, as a line of text or as a plot of losses and learning rate."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-:=+*#"  # for consoles without block characters


def render_ansi(history: Sequence[Mapping[str, Any]], max_iters: int) -> str:
    """Return one line: iteration, losses, learning rate, and the losses as bars.

    Args:
        history: The info dictionaries since reset, at least one.
        max_iters: Updates in the whole run.
    """
    last = history[-1]
    losses = np.array([info["val_loss"] for info in history])
    span = max(float(np.ptp(losses)), 1e-12)
    heights = ((losses - losses.min()) / span * (len(BARS) - 1)).round().astype(int)
    line = (
        f"iteration {last['iteration']:>6}/{max_iters}"
        f"  val_loss {last['val_loss']:.4f} (best {last['best_val_loss']:.4f})"
        f"  train_loss {last['train_loss']:.4f}"
        f"  lr {last['learning_rate']:.2e}  "
    )
    levels = _printable_bars()
    bars = "".join(levels[height] for height in heights)
    return line + bars + ("  diverged" if last["diverged"] else "")


def _printable_bars() -> str:
    """Return the bars that standard output can encode."""
    try:
        BARS.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return ASCII_BARS
    return BARS


def render_rgb(
    history: Sequence[Mapping[str, Any]], max_iters: int, title: str
) -> NDArray[np.uint8]:
    """Return a plot of the losses and the learning rate against the iteration.

    Args:
        history: The info dictionaries since reset, at least one.
        max_iters: Updates in the whole run, the right end of the axis.
        title: Of the plot.

    Returns:
        uint8, (480, 640, 3).

    Raises:
        ImportError: matplotlib is missing; the message names the extra.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "render_mode='rgb_array' needs matplotlib: pip install 'lr-gym[render]'"
        ) from error
    series = {
        key: [info[key] for info in history]
        for key in ("iteration", "val_loss", "train_loss", "learning_rate")
    }
    figure = Figure(figsize=(6.4, 4.8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    iterations = series["iteration"]
    upper.plot(iterations, series["val_loss"], "o-", ms=3, label="validation")
    # Before the first chunk there is no training loss to show.
    upper.plot(iterations[1:], series["train_loss"][1:], "o--", ms=3, label="training")
    upper.set_ylabel("loss, nats per character")
    upper.legend(loc="upper right")
    upper.set_title(title)
    lower.plot(iterations, series["learning_rate"], "o-", ms=3, color="tab:green")
    lower.set_yscale("log")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("iteration")
    lower.set_xlim(0, max_iters)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
