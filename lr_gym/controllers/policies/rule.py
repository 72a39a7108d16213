"""What rules that step back share: a start far below, and the answer to a rise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies.policy import Decision
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_boolean, check_real


class Rule(ABC):
    """A state machine over one run at a time, whose memory is plain values.

    Attributes:
        config: What it observes and how it acts.
        parameters: The arguments that make an equal rule.
    """

    config: MDPConfig

    def __init__(self, **parameters: float | bool) -> None:
        """Keep the parameters; `start_factor`, `tolerance` and `undo` among them.

        Raises:
            TypeError: One of these three has the wrong type.
            ValueError: One of them is out of range.
        """
        start_factor, tolerance = parameters["start_factor"], parameters["tolerance"]
        check_real("start_factor", start_factor, 0.0, 1.0, low_open=True)
        check_real("tolerance", tolerance, 0.0)
        check_boolean("undo", parameters["undo"])
        self.parameters = parameters
        self.start_factor = float(start_factor)
        self.tolerance = float(tolerance)

    def reset(self, decisions: int = 0) -> None:
        """Begin a run; the number of `decisions` plays no part."""
        self._memory: dict[str, Any] = {
            "started": False,
            "loss": None,
        } | self.initial_memory()

    @abstractmethod
    def initial_memory(self) -> dict[str, Any]:
        """Return what else it remembers, as it is before a run."""

    def start(self) -> Decision:
        """Start far below the given rate, whatever the loss."""
        self._memory["started"] = True
        return Decision(self.start_factor)

    @abstractmethod
    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on `config.features`, (F,) float32; see `Policy.act`."""

    def diverged(self) -> Decision:
        """Answer a loss that is not finite, or far above the initial one, as a rise."""
        self._memory["started"] = True
        return self.on_loss_increase(math.inf)

    def loss_rose(self, val_loss: float) -> bool:
        """Return whether a loss, nats, is above that of the weights before the chunk.

        Anything but a number is a rise; where there is nothing to compare with, none.
        """
        known = self._memory["loss"]
        return known is not None and not val_loss <= known + self.tolerance

    def on_loss_increase(self, val_loss: float, factor: float = 1.0) -> Decision:
        """Answer a rise to a loss, nats: lower the rate, undo where that is allowed.

        Where nothing is put back, training goes on from here, and so does comparing.
        `factor` is what the rate would be multiplied by without the rise.
        """
        undo = self.config.allow_undo
        if not undo and math.isfinite(val_loss):
            self.set_reference_loss(val_loss)
        return Decision(factor / self.config.undo_factor, undo=undo)

    def set_reference_loss(self, val_loss: float) -> None:
        """Take a loss as that of the weights that training goes on from."""
        self._memory["loss"] = val_loss if math.isfinite(val_loss) else None

    def state_dict(self) -> dict[str, Any]:
        """Return where the rule stands."""
        return dict(self._memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._memory = {name: state[name] for name in self._memory}
