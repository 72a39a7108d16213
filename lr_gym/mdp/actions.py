"""What actions do: factors on the learning rate, and undos."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.config import FloatArray, MDPConfig


def decode_actions(
    config: MDPConfig, actions: NDArray[Any]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return what actions multiply the learning rate by, and who undoes, (E,) each.

    Args:
        config: What an action means.
        actions: (E,) or (E, `action_size`), valid ones.
    """
    table = np.asarray(actions).reshape(len(actions), -1)
    none = np.zeros(len(table), dtype=np.bool_)
    if config.action_type == "continuous":
        exponents = np.asarray(table[:, 0], dtype=np.float64) * config.max_log2_factor
        undo = table[:, 1] > 0 if config.allow_undo else none
        return np.exp2(exponents), undo
    chosen = table[:, 0]
    undo = chosen == len(config.lr_factors) if config.allow_undo else none
    return config.factors[chosen], undo


def next_learning_rate(
    config: MDPConfig, learning_rate: FloatArray, factors: FloatArray
) -> FloatArray:
    """Return `learning_rate` times `factors`, clipped to [`min_lr`, `max_lr`], (E,)."""
    product: FloatArray = np.minimum(learning_rate * factors, config.max_lr)
    return np.maximum(product, config.min_lr)
