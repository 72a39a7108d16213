"""What a run's evaluations have shown so far: one episode's state, without the trainer.

Observations are made by `lr_gym.mdp`, so that a policy sees in a foreign loop what it
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

# What has to be measured for a feature, beside the validation loss.
REQUIRED_METRICS = {
    "train_loss": "train_loss",
    "generalization_gap": "train_loss",
    "grad_norm": "grad_norm",
    "update_size": "update_size",
}


class RunTracker:
    """The state of one run, E = 1."""

    def __init__(self, config: MDPConfig, max_iters: int) -> None:
        """Begin a run of which nothing is known."""
        self.config = config
        self.max_iters = max_iters
        self.seen = False  # any finite loss
        self._state = EpisodeState.empty(1)
        self._bounds = mdp.observation_bounds(config)

    def note(
        self, measured: Mapping[str, float], iteration: int, learning_rate: float
    ) -> bool:
        """Take in an evaluation; return whether the run has diverged.

        As in the environment, it has where a loss is not finite, or the validation loss
        exceeds `divergence_factor` times the first one. Losses keep their last values
        then.

        Args:
            measured: ``val_loss`` and, where the policy observes them, ``train_loss``,
                ``grad_norm`` and ``update_size``; before training the loss alone.
            iteration: Updates made.
            learning_rate: That the policy sees.

        Raises:
            ValueError: A measurement is missing or out of range; the message names it.
        """
        self._check(measured, iteration)
        state, val_loss = self._state, measured["val_loss"]
        state.iteration[0] = iteration
        state.learning_rate[0] = learning_rate
        losses = [measured[k] for k in ("val_loss", "train_loss") if k in measured]
        ceiling = divergence_loss(state, self.config)[0] if self.seen else math.inf
        if not all(map(math.isfinite, losses)) or val_loss > ceiling:
            return True
        if not self.seen:
            state.initial_loss[0] = state.val_loss[0] = val_loss
            self.seen = True
        state.previous_loss[0] = state.val_loss[0]
        state.val_loss[0] = val_loss
        state.train_loss[0] = measured.get("train_loss", val_loss)
        for name in ("grad_norm", "update_size"):
            finite = np.nan_to_num(measured.get(name, 0.0), nan=mdp.LOSS_BOUND)
            getattr(state, name)[0] = finite
        return False

    def observe(self) -> NDArray[np.float32]:
        """Return the observation, (F,) float32."""
        floor = np.array([self.config.loss_floor or 0.0])
        length = np.array([self.max_iters])
        seen = mdp.observe(self._state, self.config, length, floor, self._bounds)
        return np.asarray(seen[0])

    def state_dict(self) -> dict[str, Any]:
        """Return the state, ready for JSON."""
        arrays = {name: array.tolist() for name, array in vars(self._state).items()}
        return {"seen": self.seen, **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.seen = state["seen"]
        for name, array in vars(self._state).items():
            array[:] = state[name]

    def _check(self, measured: Mapping[str, float], iteration: int) -> None:
        for feature in self.config.features:
            needed = REQUIRED_METRICS.get(feature, "val_loss")
            if needed not in measured and (self.seen or iteration > 0):
                raise ValueError(
                    f"the policy observes {feature!r}: pass {needed}= to step()"
                )
        for name, value in measured.items():
            if value < 0.0:
                raise ValueError(f"{name} must not be negative, got {value!r}")
        val_loss = measured["val_loss"]
        if not self.seen and math.isfinite(val_loss) and val_loss > mdp.LOSS_BOUND:
            raise ValueError(
                f"val_loss must be at most {mdp.LOSS_BOUND:g} before training, got "
                f"{val_loss!r}: pass the mean per prediction, in nats"
            )
