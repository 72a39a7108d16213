"""The ramp-and-undo rule: raise the learning rate until the loss rises; undo; hold.

The rule starts far below the initial learning rate. So an initial value that is tens of
times too high does no lasting damage in the first iterations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies.policy import Decision
from lr_gym.controllers.policies.rule import Rule
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_boolean, check_real

MIN_COOLDOWN_FACTOR = 1e-3  # not 0: no factor could raise a learning rate of 0


class RampAndUndo(Rule):
    """A state machine over (validation loss, progress); one run at a time.

    - The first decision multiplies the learning rate by `start_factor`.
    - Each later one multiplies it by `growth`, until the loss rises by more than
      `tolerance`.
    - At a loss increase, the rule undoes the last chunk and divides the learning rate
      by `undo_factor`. After the first one it holds the learning rate.
    - Over the last part of the run, `cooldown`, the learning rate falls as 1 - sqrt(x),
      where x is the completed share of the cooldown (Haegele et al. 2024, arXiv
      2405.18392).

    The defaults were chosen for about 60 decisions per run, one every 10 iterations or
    so.

    >>> rule = RampAndUndo(start_factor=0.01, growth=2.0)
    >>> rule.decide(4.0, 0.0)
    Decision(factor=0.01, undo=False)
    >>> rule.decide(3.5, 0.1)
    Decision(factor=2.0, undo=False)
    >>> rule.decide(3.6, 0.2).undo
    True
    """

    def __init__(
        self,
        *,
        start_factor: float = 1.0 / 300.0,
        growth: float = 2.0,
        tolerance: float = 0.03,
        undo_factor: float = 3.0,
        cooldown: float = 0.3,
        undo: bool = True,
        min_lr: float = 1e-9,
        max_lr: float = 10.0,
    ) -> None:
        """Set the parameters.

        Args:
            start_factor: First factor on the initial learning rate, in (0, 1]. With a
                `growth` of 2, 1/300 tolerates an initial value up to 30 times too high;
                1/30 with 1.6 wastes less of a run whose initial value is about right.
            growth: Factor per decision while ramping, at least 1.
            tolerance: Largest loss increase without a reaction, at least 0, nats.
            undo_factor: Divides the learning rate at a loss increase, above 1.
            cooldown: Share of the run over which the learning rate falls, in [0, 1).
            undo: Whether to undo the last chunk at a loss increase. Without undo, the
                learning rate is only lowered and held.
            min_lr: Lower bound of the learning rate.
            max_lr: Upper bound of the learning rate.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range.
        """
        super().__init__(
            start_factor=start_factor,
            growth=growth,
            tolerance=tolerance,
            undo_factor=undo_factor,
            cooldown=cooldown,
            undo=undo,
            min_lr=min_lr,
            max_lr=max_lr,
        )
        check_real("growth", growth, 1.0)
        check_real("cooldown", cooldown, 0.0, 1.0, high_open=True)
        self.growth = float(growth)
        self.cooldown = float(cooldown)
        self.config = MDPConfig(
            features=("val_loss", "progress"),
            allow_undo=undo,
            undo_factor=undo_factor,
            min_lr=min_lr,
            max_lr=max_lr,
        )
        self.reset()

    def initial_memory(self) -> dict[str, Any]:
        """Return the initial memory: ramping, not cooled down."""
        return {"ramping": True, "cooldown_factor": 1.0}

    def check_memory(self, state: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError unless the entries above are valid."""
        check_boolean("ramping", state["ramping"])
        check_real("cooldown_factor", state["cooldown_factor"], 0.0, 1.0, low_open=True)

    def decide(self, val_loss: float, progress: float) -> Decision:
        """Return the next factor on the learning rate, and whether to undo.

        Args:
            val_loss: Validation loss of the current weights, nats; NaN counts as an
                increase.
            progress: Share of the run's iterations completed, in [0, 1].
        """
        memory = self._memory
        if not memory["started"]:
            self.set_reference_loss(val_loss)
            return self.start()
        previous = memory["cooldown_factor"]
        memory["cooldown_factor"] = self._cooldown_factor(progress)
        factor = memory["cooldown_factor"] / previous
        if self.loss_rose(val_loss):
            return self.on_loss_increase(val_loss, factor)
        self.set_reference_loss(val_loss)
        if memory["ramping"] and progress < 1.0 - self.cooldown:
            factor *= self.growth
        return Decision(factor)

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on (val_loss, progress), (2,) float32."""
        return self.decide(float(observation[0]), float(observation[1]))

    def on_loss_increase(self, val_loss: float, factor: float = 1.0) -> Decision:
        """Step back as `Rule.on_loss_increase`, and stop ramping."""
        self._memory["ramping"] = False
        return super().on_loss_increase(val_loss, factor)

    def _cooldown_factor(self, progress: float) -> float:
        """Return the factor of the cooldown at a share of the run, in (0, 1]."""
        if self.cooldown == 0.0:
            return 1.0
        elapsed = (progress - (1.0 - self.cooldown)) / self.cooldown
        return max(MIN_COOLDOWN_FACTOR, 1.0 - math.sqrt(min(1.0, max(0.0, elapsed))))
