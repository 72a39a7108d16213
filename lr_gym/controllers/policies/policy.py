"""The interface of policies: an observation in; a learning-rate factor or an undo out.

A policy sees only the features of `lr_gym.mdp`, so it acts the same in the environment
and in a user's training loop. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lr_gym import mdp
from lr_gym.mdp.config import MDPConfig

Action: TypeAlias = int | NDArray[np.float32]


@dataclass(frozen=True)
class Decision:
    """A policy's decision.

    Attributes:
        factor: Multiplies the learning rate, above 0; the result is clipped to the
            bounds.
        undo: Whether to restore weights and optimizer to the previous decision first.
    """

    factor: float
    undo: bool = False


class Policy(Protocol):
    """Decides on the learning rate of one run at a time.

    Attributes:
        config: What the policy observes (`features`, in this order), the bounds
            (`min_lr`, `max_lr`), when it decides (`decision_spacing`), which schedule
            its learning rate multiplies (`base_schedule`), and whether it undoes
            (`allow_undo`).
    """

    config: MDPConfig

    def reset(self, decisions: int) -> None:
        """Start a run of about `decisions` decisions."""

    def start(self) -> Decision | None:
        """Return the first decision of a run that trains before it evaluates.

        `None` means that the policy needs a loss first.
        """

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on an observation of `config.features`, (F,) float32."""

    def diverged(self) -> Decision:
        """Decide after a loss that is not finite, or far above the first one."""

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of the run so far, ready for JSON."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; raise before anything changes if it is wrong."""


class ActionPolicy:
    """A policy that chooses among the environment's actions, such as a learned one.

    Attributes:
        config: The decision process; see `Policy`.
        head: Chooses the action.
    """

    def __init__(
        self, config: MDPConfig, head: Callable[[NDArray[np.float32], int], Action]
    ) -> None:
        """Act in the decision process `config`.

        Args:
            config: The decision process that `head` acts in.
            head: An `MLP`, a `QTable`, or another function of an observation, (F,)
                float32, and the number of decisions in the run. It returns the action
                as the environment takes it: an index, or an array.
        """
        self.config = config
        self.head = head
        self._decisions = 1

    def reset(self, decisions: int) -> None:
        """Start a run of `decisions` decisions."""
        self._decisions = decisions

    def start(self) -> None:
        """Return no decision: the environment evaluates before it trains."""
        return None

    def action(self, observation: NDArray[np.float32]) -> Action:
        """Return the environment's action for an observation, (F,) float32."""
        return self.head(observation, self._decisions)

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Return the chosen action as a decision."""
        actions = np.array([self.action(observation)])
        factors, undos = mdp.decode_actions(self.config, actions)
        return Decision(float(factors[0]), undo=bool(undos[0]))

    def diverged(self) -> Decision:
        """Undo and lower the learning rate; the environment ends such runs."""
        return Decision(1.0 / self.config.undo_factor, undo=True)

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict: the policy has no memory."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load nothing: the policy has no memory."""
