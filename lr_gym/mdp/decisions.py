"""Decision points: the iterations at which chunks of training end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.config import MDPConfig


def decision_points(
    config: MDPConfig, max_iters: int, eval_interval: int
) -> NDArray[np.int64]:
    """Return the iteration at which the chunk of each decision ends, increasing.

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
    """Return the decision points at the same fractions of a run of another length.

    Args:
        points: From `decision_points`; the last is the length of the first run.
        max_iters: Iterations in the other run.

    Raises:
        ValueError: The other run is too short for as many decisions.

    >>> rescale_decision_points(np.array([10, 20, 50, 100]), 200).tolist()
    [20, 40, 100, 200]
    """
    ratio = max_iters / int(points[-1])
    rescaled: NDArray[np.int64] = np.rint(points * ratio).astype(np.int64)
    if (np.diff(rescaled, prepend=0) < 1).any():
        raise ValueError(
            f"max_iters={max_iters} is too short for {len(points)} decisions at the "
            f"same fractions as in a run of {points[-1]} iterations; pass larger "
            "intervals or a larger max_iters"
        )
    return rescaled
