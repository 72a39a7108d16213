"""What a policy is: from an observation to a factor on the learning rate, or an undo.

A policy sees the features of `lr_gym.mdp` and nothing else, so that it acts the same in
the environment and in somebody's own training loop. Nothing here knows of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lr_gym import mdp
from lr_gym.mdp.config import MDPConfig


@dataclass(frozen=True)
class Decision:
    """What a policy wants.

    Attributes:
        factor: Multiplies the learning rate, above 0; bounds apply afterwards.
        undo: First put weights and optimizer back to where they were before the last
            chunk of training.
    """

    factor: float
    undo: bool = False


class Policy(Protocol):
    """Decides on the learning rate of one run at a time.

    Attributes:
        config: What it observes (`features`, in this order, within the bounds of
            `min_lr` and `max_lr`), how often it decides (`decision_spacing`), what it
            acts on top of (`base_schedule`), and whether it undoes (`allow_undo`).
            `lr_factors` are those of policies that choose among them.
    """

    config: MDPConfig

    def reset(self, decisions: int) -> None:
        """Begin a run of about `decisions` decisions."""

    def start(self) -> Decision | None:
        """Return the first decision of a run that is not evaluated before it trains.

        `None`: it cannot decide without having seen a loss.
        """

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on `config.features`, (F,) float32, as `mdp.observe` makes them."""

    def diverged(self) -> Decision:
        """Decide after a loss that is not finite, or far above the initial one."""

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of the run so far, ready for JSON."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; KeyError where an entry is missing."""


class Head(Protocol):
    """What chooses an action of the environment; a pure function."""

    def action(
        self, observation: NDArray[np.float32], decisions: int
    ) -> int | NDArray[np.float32]:
        """Return the action as the environment takes it: an index, or an array.

        Args:
            observation: (F,) float32.
            decisions: Decisions in the whole run.
        """


class ActionPolicy:
    """A policy made in the environment: it chooses one of the environment's actions."""

    def __init__(self, config: MDPConfig, head: Head) -> None:
        """Act in the decision process `config` as `head` chooses."""
        self.config = config
        self.head = head
        self._decisions = 1

    def reset(self, decisions: int) -> None:
        """Begin a run; see `Policy.reset`."""
        self._decisions = decisions

    def start(self) -> None:
        """In the environment every run is evaluated first."""
        return None

    def action(self, observation: NDArray[np.float32]) -> int | NDArray[np.float32]:
        """Return the environment's action for an observation, (F,) float32."""
        return self.head.action(observation, self._decisions)

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Return what the chosen action does."""
        action = np.array([self.action(observation)])
        factors, undos = mdp.decode_actions(self.config, action)
        return Decision(float(factors[0]), undo=bool(undos[0]))

    def diverged(self) -> Decision:
        """Take the chunk back and lower the rate: no policy has seen such a loss."""
        return Decision(1.0 / self.config.undo_factor, undo=True)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: it has no memory."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""
