"""Ids for clients that take only an id: the observation is named, returns are recorded.

A client that gets ``benchmarks.clients.recorded:RecordedSim-default-v0`` imports this
module, as `gym.make` does. Each process appends a line per episode to the file that the
environment variable `RETURNS_FILE` names, if it is set: the environment steps of the
process so far, and the return.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lr_gym import LRTuningEnv

RETURNS_FILE = "LR_GYM_RETURNS_FILE"
LEARNING = ("val_loss", "log_learning_rate", "progress")
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {"features": ("val_loss", "learning_rate")},
    "learning": {"features": LEARNING},
    "continuous": {"features": LEARNING, "action_type": "continuous"},
}
TRAINERS = {"Sim": "surrogate", "Real": "real"}

Observation = NDArray[np.float32]


class RecordReturns(gym.Wrapper[Observation, Any, Observation, Any]):
    """Appends the return of each finished episode to a file."""

    steps = 0  # of all environments in this process

    def __init__(self, env: gym.Env[Observation, Any]) -> None:
        """Wrap `env`."""
        super().__init__(env)
        self._return = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode."""
        self._return = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(
        self,
        action: Any,  # noqa: ANN401 - of any action space
    ) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; record the return of an episode that ends."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        RecordReturns.steps += 1
        self._return += float(reward)
        if (terminated or truncated) and RETURNS_FILE in os.environ:
            with Path(os.environ[RETURNS_FILE]).open("a", encoding="utf-8") as file:
                file.write(f"{RecordReturns.steps} {self._return!r}\n")
        return observation, reward, terminated, truncated, info


def make_recorded(**settings: Any) -> RecordReturns:
    """Return an environment that records its returns."""
    return RecordReturns(LRTuningEnv(**settings))


def recorded_id(kind: str, name: str) -> str:
    """Return the id, with its module, for a key of `TRAINERS` and of `SETTINGS`."""
    return f"{__name__}:Recorded{kind}-{name}-v0"


for _kind, _trainer in TRAINERS.items():
    for _name, _settings in SETTINGS.items():
        gym.register(
            id=recorded_id(_kind, _name).partition(":")[2],
            entry_point=make_recorded,
            kwargs={
                "corpus": "markov",
                "scale": "tiny",
                "trainer": _trainer,
                **_settings,
            },
        )
