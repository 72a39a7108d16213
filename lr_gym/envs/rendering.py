"""An episode so far, as a line of text or as a plot of losses and learning rate."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.envs.trainer_choice import REAL
from lr_gym.surrogate.law import LossLaw
from lr_gym.surrogate.trainer import SurrogateTrainer

RenderFrame = str | NDArray[np.uint8]

RENDER_MODES = ["ansi", "rgb_array"]
BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-:=+*#"  # for consoles without block characters
LOSS_AXIS = 1.25  # its upper end, as a multiple of the initial validation loss
LR_MARGIN = 1.5  # factor between the extreme learning rates and the ends of the axis


def check_render_mode(render_mode: object) -> None:
    """Raise ValueError unless `render_mode` is `None` or supported."""
    if render_mode not in (None, *RENDER_MODES):
        raise ValueError(
            f"render_mode must be None or one of {RENDER_MODES}, got {render_mode!r}"
        )


def render_ansi(history: Sequence[Mapping[str, Any]], max_iters: int) -> str:
    """Return one line: iteration, losses, learning rate, and the losses as bars.

    Args:
        history: The info dictionaries since reset, at least one.
        max_iters: Iterations in the whole run.
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


def training_kind(trainer: object) -> str:
    """Return the kind of training, for a title, from `trainer` of `gym.make`."""
    if trainer == REAL:
        return "real training"
    if isinstance(trainer, str | os.PathLike | Mapping | LossLaw | SurrogateTrainer):
        return "simulated"
    return "a user's trainer"


def seed_label(seed: int | None, run_seed: int | None) -> str:
    """Return the end of a title: the seed that `reset` was passed, if any."""
    if run_seed is not None:
        return f", run seed {run_seed}"
    return "" if seed is None else f", seed {seed}"


def render_rgb(
    history: Sequence[Mapping[str, Any]],
    max_iters: int,
    title: str,
    lr_limits: tuple[float, float],
) -> NDArray[np.uint8]:
    """Return a plot of the losses and the learning rate against the iteration.

    All frames of an episode have the same axes. A loss above them is drawn at the edge.

    Args:
        history: The info dictionaries since reset, at least one.
        max_iters: Iterations in the whole run, the right end of the axis.
        title: The plot's title.
        lr_limits: The lowest and the highest learning rate of the environment.

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
    top = LOSS_AXIS * history[0]["val_loss"]
    if top > 0.0:  # a user's loss can be negative
        upper.set_ylim(0.0, top)
        for key in ("val_loss", "train_loss"):
            series[key] = [min(loss, top) for loss in series[key]]
    upper.plot(iterations, series["val_loss"], "o-", ms=3, label="validation")
    # Before the first chunk there is no training loss to show.
    upper.plot(iterations[1:], series["train_loss"][1:], "o--", ms=3, label="training")
    if history[-1]["diverged"]:
        for axes, label in ((upper, "diverged"), (lower, None)):
            axes.axvline(iterations[-1], color="tab:red", ls=":", label=label)
    upper.set_ylabel("loss, nats per character")
    upper.legend(loc="upper right")
    upper.set_title(title)
    # The first action changes the initial rate before any training.
    rates = series["learning_rate"][1:2] + series["learning_rate"][1:]
    lower.step(
        iterations,
        rates or series["learning_rate"],
        "o-",
        where="pre",
        ms=3,
        color="tab:green",
    )
    lower.set_yscale("log")
    lower.set_ylim(lr_limits[0] / LR_MARGIN, lr_limits[1] * LR_MARGIN)
    lower.set_ylabel("learning rate")
    lower.set_xlabel("iteration")
    lower.set_xlim(0, max_iters)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
