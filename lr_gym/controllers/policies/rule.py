"""The base of the hand-written rules: a low start, and what follows a loss increase."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies.policy import Decision
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_boolean, check_complete, check_real


class Rule(ABC):
    """A state machine over one run at a time; its memory holds plain values.

    Attributes:
        config: What the rule observes and how it acts.
        parameters: The constructor's arguments; they make an equal rule.
    """

    config: MDPConfig

    def __init__(self, **parameters: float | bool) -> None:
        """Keep the parameters; check those that all rules have.

        Args:
            **parameters: All arguments of the rule, including `start_factor`,
                `tolerance` and `undo`.

        Raises:
            TypeError: One of these three has the wrong type.
            ValueError: One of these three is out of range.
        """
        start_factor, tolerance = parameters["start_factor"], parameters["tolerance"]
        check_real("start_factor", start_factor, 0.0, 1.0, low_open=True)
        check_real("tolerance", tolerance, 0.0)
        check_boolean("undo", parameters["undo"])
        self.parameters = parameters
        self.start_factor = float(start_factor)
        self.tolerance = float(tolerance)

    def reset(self, decisions: int = 0) -> None:
        """Start a run; rules ignore the number of `decisions`."""
        self._memory: dict[str, Any] = {
            "started": False,
            "reference_loss": None,  # of the weights that training goes on from, nats
        } | self.initial_memory()

    @abstractmethod
    def initial_memory(self) -> dict[str, Any]:
        """Return the rule's own entries of the memory, as they are before a run."""

    def start(self) -> Decision:
        """Return the first decision: go far below the initial learning rate."""
        self._memory["started"] = True
        return Decision(self.start_factor)

    @abstractmethod
    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on an observation of `config.features`, (F,) float32."""

    def diverged(self) -> Decision:
        """Decide after a divergence, as after a loss increase."""
        self._memory["started"] = True
        return self.on_loss_increase(math.inf)

    def loss_rose(self, val_loss: float) -> bool:
        """Return whether a loss exceeds the reference loss by more than `tolerance`.

        NaN counts as an increase. Without a reference loss there is no increase.
        """
        reference = self._memory["reference_loss"]
        return reference is not None and not val_loss <= reference + self.tolerance

    def on_loss_increase(self, val_loss: float, factor: float = 1.0) -> Decision:
        """Lower the learning rate, and undo the last chunk if the rule may undo.

        Args:
            val_loss: The increased loss, nats. Without undo it becomes the reference
                loss, because training goes on from these weights.
            factor: The factor on the learning rate that the rule would have chosen
                without the increase.
        """
        undo = self.config.allow_undo
        if not undo and math.isfinite(val_loss):
            self.set_reference_loss(val_loss)
        return Decision(factor / self.config.undo_factor, undo=undo)

    def set_reference_loss(self, val_loss: float) -> None:
        """Compare later losses with `val_loss`, nats; with none if it is not finite."""
        finite = math.isfinite(val_loss)
        self._memory["reference_loss"] = val_loss if finite else None

    def state_dict(self) -> dict[str, Any]:
        """Return the memory, ready for JSON."""
        return dict(self._memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            TypeError: An entry is missing, unknown or of the wrong type.
            ValueError: A number is out of range.
        """
        check_complete("policy", state, tuple(self._memory))
        check_boolean("started", state["started"])
        if state["reference_loss"] is not None:
            check_real("reference_loss", state["reference_loss"], 0.0)
        self.check_memory(state)
        self._memory = {name: state[name] for name in self._memory}

    @abstractmethod
    def check_memory(self, state: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError unless the rule's own entries are valid."""
