"""When an agent decides: the iterations at which chunks of training end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.config import MDPConfig


def decision_points(
    config: MDPConfig, max_iters: int, eval_interval: int
) -> NDArray[np.int64]:
    """Return the iteration at which each decision's chunk ends, increasing.

    >>> decision_points(MDPConfig(), max_iters=100, eval_interval=40).tolist()
    [40, 80, 100]
    """
    start = 0
    early: list[int] = []
    if config.decision_spacing == "dense_start":
        start = max(1, round(max_iters * config.dense_fraction))
        early = [*range(config.dense_interval, start, config.dense_interval), start]
    late = range(start + eval_interval, max_iters, eval_interval)
    return np.array(sorted({*early, *late, max_iters}), dtype=np.int64)


def rescale_decision_points(
    points: NDArray[np.int64], max_iters: int
) -> NDArray[np.int64]:
    """Return the decision points of a run of another length, at the same shares of it.

    Args:
        points: As of `decision_points`; the last is that run's length.
        max_iters: Updates of the other run.

    Raises:
        ValueError: It is too short for as many decisions.

    >>> rescale_decision_points(np.array([10, 20, 50, 100]), 200).tolist()
    [20, 40, 100, 200]
    """
    share = max_iters / int(points[-1])
    moved: NDArray[np.int64] = np.rint(points * share).astype(np.int64)
    if (np.diff(moved, prepend=0) < 1).any():
        raise ValueError(
            f"max_iters={max_iters} is too short for {len(points)} decisions at the "
            f"shares of a run of {points[-1]}; pass larger intervals, or a larger "
            "max_iters"
        )
    return moved
