"""Tracks one training run from its evaluations and makes the policy's observations.

`lr_gym.mdp` makes the observations, so a policy sees in a user's training loop what it
would see in the environment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym import mdp
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.episode_state import EpisodeState
from lr_gym.mdp.rewards import divergence_loss
from lr_gym.validation import (
    MAX_REAL,
    check_boolean,
    check_complete,
    check_integer,
    check_real,
)

# The metric that a feature needs besides the validation loss.
REQUIRED_METRICS = {
    "train_loss": "train_loss",
    "generalization_gap": "train_loss",
    "grad_norm": "grad_norm",
    "update_size": "update_size",
}


class RunTracker:
    """Holds the episode state of one run, E = 1."""

    def __init__(self, config: MDPConfig, max_iters: int) -> None:
        """Start a run; no loss is known yet."""
        self.config = config
        self.max_iters = max_iters
        self.has_loss = False  # a finite one
        self._state = EpisodeState.empty(1)
        self._bounds = mdp.observation_bounds(config)

    def update(
        self, metrics: Mapping[str, float], iteration: int, learning_rate: float
    ) -> bool:
        """Take in an evaluation; return whether the run has diverged.

        A run diverges as in the environment: a loss is not finite, or the validation
        loss exceeds `divergence_factor` times the first one. The losses then keep their
        previous values.

        Args:
            metrics: ``val_loss``, and those of ``train_loss``, ``grad_norm`` and
                ``update_size`` that the policy observes. Before training, ``val_loss``
                suffices.
            iteration: Updates made.
            learning_rate: The learning rate that the policy sees.

        Raises:
            ValueError: A metric is missing or out of range; the message names it.
        """
        self._check(metrics, iteration)
        state, val_loss = self._state, metrics["val_loss"]
        state.iteration[0] = iteration
        state.learning_rate[0] = learning_rate
        losses = [metrics[k] for k in ("val_loss", "train_loss") if k in metrics]
        limit = divergence_loss(state, self.config)[0] if self.has_loss else math.inf
        if not all(map(math.isfinite, losses)) or val_loss > limit:
            return True
        if not self.has_loss:
            state.initial_loss[0] = state.val_loss[0] = val_loss
            self.has_loss = True
        state.previous_loss[0] = state.val_loss[0]
        state.val_loss[0] = val_loss
        state.train_loss[0] = metrics.get("train_loss", val_loss)
        for name in ("grad_norm", "update_size"):
            measured = metrics.get(name, 0.0)
            finite = np.nan_to_num(measured, nan=mdp.LOSS_BOUND, posinf=MAX_REAL)
            getattr(state, name)[0] = finite
        return False

    def observe(self) -> NDArray[np.float32]:
        """Return the observation, (F,) float32."""
        loss_floors = np.array([self.config.loss_floor or 0.0])
        max_iters = np.array([self.max_iters])
        observations = mdp.observe(
            self._state, self.config, max_iters, loss_floors, self._bounds
        )
        return np.asarray(observations[0])

    def state_dict(self) -> dict[str, Any]:
        """Return the state, ready for JSON."""
        arrays = {name: array.tolist() for name, array in vars(self._state).items()}
        return {"has_loss": self.has_loss, **arrays}

    def check_state_dict(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a saved state.

        Raises:
            TypeError: An entry is missing, unknown or of the wrong type.
            ValueError: A number is out of range.
        """
        arrays = vars(self._state)
        check_complete("run", state, ("has_loss", *arrays))
        check_boolean("has_loss", state["has_loss"])
        for name, array in arrays.items():
            values = state[name]
            if not isinstance(values, list | tuple) or len(values) != 1:
                raise TypeError(f"{name} must be a list of one number, got {values!r}")
            if array.dtype == np.bool_:
                check_boolean(name, values[0])
            elif array.dtype == np.int64:
                check_integer(name, values[0], 0)
            else:
                check_real(name, values[0], 0.0)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `check_state_dict` returned."""
        self.has_loss = state["has_loss"]
        for name, array in vars(self._state).items():
            array[:] = state[name]

    def _check(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Raise ValueError unless the metrics are complete and in range."""
        for feature in self.config.features:
            needed = REQUIRED_METRICS.get(feature, "val_loss")
            if needed not in metrics and (self.has_loss or iteration > 0):
                raise ValueError(
                    f"the policy observes {feature!r}: pass {needed}= to step()"
                )
        for name, value in metrics.items():
            if value < 0.0:
                raise ValueError(f"{name} must not be negative, got {value!r}")
        val_loss = metrics["val_loss"]
        if not self.has_loss and math.isfinite(val_loss) and val_loss > mdp.LOSS_BOUND:
            raise ValueError(
                f"the first val_loss must be at most {mdp.LOSS_BOUND:g}, got "
                f"{val_loss!r}: pass the mean per prediction, in nats"
            )
