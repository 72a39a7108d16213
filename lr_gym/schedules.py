"""Learning-rate schedules: factors that multiply the agent's learning rate.

The agent's learning rate is the peak, and the schedule multiplies it at each iteration.
An agent that never changes its learning rate therefore follows the schedule exactly, as
the baselines do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.validation import check_choice

FloatArray = NDArray[np.float64]

COSINE_FLOOR = 0.1  # the paper's code decays to a tenth of the peak
COOLDOWN = 0.2  # share of the run, Haegele et al. 2024 (arXiv 2405.18392)
ONE_CYCLE_RISE = 0.3  # torch's OneCycleLR: pct_start
ONE_CYCLE_START = 1 / 25  # torch's OneCycleLR: div_factor


def _cosine(progress: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.cos(np.pi * progress))


def _cooldown(progress: FloatArray) -> FloatArray:
    """Return progress within the final cooldown: 0 before it, 1 at the end."""
    return np.clip((progress - (1.0 - COOLDOWN)) / COOLDOWN, 0.0, 1.0)


def _one_cycle(progress: FloatArray) -> FloatArray:
    rising = np.clip(progress / ONE_CYCLE_RISE, 0.0, 1.0)
    falling = np.clip((progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE), 0.0, 1.0)
    up = ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1.0 - _cosine(rising))
    return np.where(progress < ONE_CYCLE_RISE, up, _cosine(falling))


# Each maps progress after warm-up, in [0, 1], to a factor in [0, 1].
_SHAPES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "constant": np.ones_like,
    "step": lambda progress: 0.1 ** np.floor(progress * 3.0).clip(max=2.0),
    "cosine": lambda progress: COSINE_FLOOR + (1 - COSINE_FLOOR) * _cosine(progress),
    "cosine_to_zero": _cosine,
    "linear": lambda progress: 1.0 - progress,
    "wsd": lambda progress: 1.0 - np.sqrt(_cooldown(progress)),
    "wsd_linear": lambda progress: 1.0 - _cooldown(progress),
    "one_cycle": _one_cycle,
}
SCHEDULES = (*_SHAPES, "inverse_sqrt")


def schedule_factor(
    schedule: str, iteration: ArrayLike, max_iters: ArrayLike, warmup_iters: int
) -> FloatArray:
    """Return the factor on the peak learning rate at `iteration`.

    Linear warm-up, (i + 1) / (warmup_iters + 1), then the schedule over the other
    iterations:

    ==================  ==============================================================
    ``constant``        1
    ``step``            1, then 0.1, then 0.01, a third of the run each
    ``cosine``          half a cosine from 1 to 0.1 (the paper's baseline)
    ``cosine_to_zero``  half a cosine from 1 to 0
    ``linear``          straight to 0 (Defazio et al. 2023, arXiv 2310.07831)
    ``wsd``             1, then 1 - sqrt(x) over the last 20 % (Haegele et al. 2024)
    ``wsd_linear``      1, then straight to 0 over the last 20 %
    ``one_cycle``       cosine from 1/25 up to 1 at 30 %, then down to 0 (Smith 2018)
    ``inverse_sqrt``    sqrt(w / (w + i)), i iterations after w = max(1, warmup_iters)
    ==================  ==============================================================

    Args:
        schedule: One of `SCHEDULES`.
        iteration: Number of the iteration from 0, any shape.
        max_iters: Iterations in the whole run; broadcast with `iteration`.
        warmup_iters: Iterations of warm-up, at most `max_iters`.

    Returns:
        Factors in [0, 1], of the broadcast shape.

    Raises:
        ValueError: `schedule` is unknown.

    >>> schedule_factor("linear", [0, 50, 100], max_iters=100, warmup_iters=0).tolist()
    [1.0, 0.5, 0.0]
    """
    check_choice("base_schedule", schedule, SCHEDULES)
    iteration = np.asarray(iteration, dtype=np.float64)
    warmup = np.minimum(1.0, (iteration + 1.0) / (warmup_iters + 1.0))
    after = np.maximum(iteration - warmup_iters, 0.0)
    if schedule == "inverse_sqrt":
        scale = max(1, warmup_iters)
        return np.asarray(warmup * np.sqrt(scale / (scale + after)))
    length = np.maximum(1, np.asarray(max_iters) - warmup_iters)
    progress = np.clip(after / length, 0.0, 1.0)
    return np.asarray(warmup * _SHAPES[schedule](progress))
