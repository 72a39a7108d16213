"""The effect of actions: they multiply the learning rate, or undo the last chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.config import FloatArray, MDPConfig


def decode_actions(
    config: MDPConfig, actions: NDArray[Any]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the factors on the learning rate, and which members undo, (E,) each.

    Args:
        config: Meaning of the actions.
        actions: Valid actions, (E,) or (E, `action_size`).
    """
    actions = np.asarray(actions).reshape(len(actions), -1)  # (E, action_size)
    no_undo = np.zeros(len(actions), dtype=np.bool_)
    if config.action_type == "continuous":
        log2_factors = actions[:, 0].astype(np.float64) * config.max_log2_factor
        undo = actions[:, 1] > 0 if config.allow_undo else no_undo
        return np.exp2(log2_factors), undo
    choices = actions[:, 0]
    undo = choices == len(config.lr_factors) if config.allow_undo else no_undo
    return config.factors[choices], undo


def next_learning_rate(
    config: MDPConfig, learning_rate: FloatArray, factors: FloatArray
) -> FloatArray:
    """Return `learning_rate` times `factors`, clipped to [`min_lr`, `max_lr`], (E,)."""
    product: FloatArray = np.minimum(learning_rate * factors, config.max_lr)
    return np.maximum(product, config.min_lr)
