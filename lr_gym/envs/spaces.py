"""Observation and action spaces, and the actions that a user passes."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray

from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.observations import space_bounds

Observation = NDArray[np.float32]
Action = int | NDArray[np.float32]  # discrete or continuous


def build_observation_space(config: MDPConfig) -> spaces.Space[Observation]:
    """Return the space of one observation."""
    low, high = space_bounds(config)
    return spaces.Box(low, high, dtype=np.float32)


def build_action_space(config: MDPConfig) -> spaces.Space[Any]:
    """Return the space of one action."""
    if config.action_type == "continuous":
        return spaces.Box(-1.0, 1.0, (config.action_size,), dtype=np.float32)
    return spaces.Discrete(len(config.lr_factors) + int(config.allow_undo))


def read_action(name: str, value: object, space: spaces.Space[Any]) -> NDArray[Any]:
    """Return one or more actions as an array of `space`.

    Raises:
        InvalidAction: `value` is not in `space`, or a conversion would change it:
            discrete actions are integers, continuous ones integers or floats.
    """
    kinds = "iu" if np.issubdtype(space.dtype, np.integer) else "iuf"
    try:
        actions = np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths, a tensor on a GPU
        actions = np.empty(0, dtype=object)
    if actions.dtype.kind in kinds and actions.shape == space.shape:
        with np.errstate(over="ignore"):
            actions = actions.astype(space.dtype)
        if space.contains(actions):
            return actions
    raise InvalidAction(f"{name} must be in {space}, got {value!r}")
