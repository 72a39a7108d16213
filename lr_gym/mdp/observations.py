"""Observations: features of the state of episodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.episode_state import EpisodeState, FloatArray


class ObservationConfig(Protocol):
    """The settings that observations depend on; part of `MDPConfig`."""

    @property
    def features(self) -> tuple[str, ...]:
        """The observation's entries, in order."""

    @property
    def min_lr(self) -> float:
        """Lower bound of the learning rate."""

    @property
    def max_lr(self) -> float:
        """Upper bound of the learning rate."""


LOSS_BOUND = 1e3  # nats: observed losses are clipped here, far above any divergence
LOG_BOUND = 10.0  # observed logarithms are clipped to [-10, 10]
# Computes a feature, (E,), from the state, progress and the loss floor in nats.
_Reading = Callable[[EpisodeState, FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Feature:
    """One entry of the observation: its bounds and its value."""

    low: Callable[[ObservationConfig], float]
    high: Callable[[ObservationConfig], float]
    value: _Reading


def _between(low: float, high: float, value: _Reading) -> Feature:
    return Feature(lambda _: low, lambda _: high, value)


FEATURES: dict[str, Feature] = {
    "val_loss": _between(0.0, LOSS_BOUND, lambda s, p, f: s.val_loss),
    "learning_rate": Feature(
        lambda c: c.min_lr, lambda c: c.max_lr, lambda s, p, f: s.learning_rate
    ),
    "log_learning_rate": Feature(
        lambda c: math.log10(c.min_lr),
        lambda c: math.log10(c.max_lr),
        lambda s, p, f: np.log10(s.learning_rate),
    ),
    "progress": _between(0.0, 1.0, lambda s, p, f: p),
    "train_loss": _between(0.0, LOSS_BOUND, lambda s, p, f: s.train_loss),
    "log_excess_loss": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f: np.log(np.maximum(s.val_loss - f, 1e-4)),
    ),
    "loss_slope": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f: np.log(s.previous_loss) - np.log(s.val_loss),
    ),
    "generalization_gap": _between(
        -LOSS_BOUND, LOSS_BOUND, lambda s, p, f: s.val_loss - s.train_loss
    ),
    "grad_norm": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f: np.log10(np.maximum(s.grad_norm, 1e-8)),
    ),
    "update_size": _between(
        -LOG_BOUND,
        LOG_BOUND,
        lambda s, p, f: np.log10(np.maximum(s.update_size, 1e-8)),
    ),
}


def observation_bounds(config: ObservationConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the lowest and highest observation, float32 of shape (features,)."""
    features = [FEATURES[name] for name in config.features]
    low = np.array([feature.low(config) for feature in features], dtype=np.float32)
    high = np.array([feature.high(config) for feature in features], dtype=np.float32)
    return low, high


def space_bounds(config: ObservationConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the bounds of the observation space: observed values and 0.

    When one episode of a batch ends, TorchRL fills observations of the others with
    zeros and checks them against the space.
    """
    low, high = observation_bounds(config)
    return np.minimum(low, 0), np.maximum(high, 0)


def observe(
    state: EpisodeState,
    config: ObservationConfig,
    max_iters: NDArray[np.int64],
    loss_floor: FloatArray,
    bounds: tuple[NDArray[Any], NDArray[Any]],
) -> NDArray[np.float32]:
    """Return the observations, (E, features) float32, clipped to their bounds.

    Args:
        state: The episodes' state.
        config: The features.
        max_iters: Iterations in each run, (E,).
        loss_floor: Lower bound of the loss in ``log_excess_loss``, (E,), nats.
        bounds: From `observation_bounds`, which costs more than an observation.
    """
    progress = state.iteration / max_iters
    values = [
        FEATURES[name].value(state, progress, loss_floor) for name in config.features
    ]
    observations = np.array(values, dtype=np.float32).T
    low, high = bounds
    return np.asarray(np.minimum(np.maximum(observations, low, order="C"), high))
