"""The ramp-and-undo rule: raise the rate until the loss rises, step back, hold, anneal.

Needs no learning and no tuning: it starts far below the given learning rate, so that
one that is too high by a factor of tens does no lasting damage in the first iterations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies.policy import Decision
from lr_gym.controllers.policies.rule import Rule
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_real

ANNEALED = 1e-3  # the cooldown ends here and not at 0, from where no factor leads back


class RampAndUndo(Rule):
    """A state machine over (validation loss, progress); one run at a time.

    The first decision multiplies the learning rate by `start_factor`. Each later one
    multiplies it by `growth` for as long as the loss does not rise by more than
    `tolerance`. At the first rise the last chunk is taken back, the rate divided by
    `undo_factor` and held from then on; any later rise is answered in the same way.
    Over the last part of the run the rate falls as 1 - sqrt(x) (Haegele et al. 2024,
    arXiv 2405.18392), x being how far into the `cooldown` the run is.

    It wants to decide often: about 60 times in a run, each time after some 10
    iterations, is what its defaults were chosen on.

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
        """Set the rule.

        Args:
            start_factor: Of the given learning rate, what to start from, in (0, 1].
                With a `growth` of 2, 1/300 stands given rates up to 30 times too high;
                1/30 with 1.6 wastes less of a run whose given rate is about right.
            growth: Factor per decision while ramping, at least 1.
            tolerance: The largest rise of the loss that is not answered, nats.
            undo_factor: What a rise divides the rate by, above 1.
            cooldown: Share of the run over which the rate falls, in [0, 1).
            undo: Whether a rise takes the last chunk back. Without, the rate is lowered
                and held all the same, but the damage stays.
            min_lr: The rate never falls below this.
            max_lr: The rate never rises above this.

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
        """Return that it ramps, and that nothing has cooled down."""
        return {"ramping": True, "annealed": 1.0}

    def decide(self, val_loss: float, progress: float) -> Decision:
        """Return the next factor on the learning rate, and whether to undo.

        Args:
            val_loss: Of the weights as they are now; anything but a number is a rise.
            progress: Share of the run's iterations spent, in [0, 1].
        """
        memory = self._memory
        if not memory["started"]:
            self.set_reference_loss(val_loss)
            return self.start()
        before, memory["annealed"] = memory["annealed"], self._cooled(progress)
        factor = memory["annealed"] / before
        if self.loss_rose(val_loss):
            return self.on_loss_increase(val_loss, factor)
        self.set_reference_loss(val_loss)
        if memory["ramping"] and progress < 1.0 - self.cooldown:
            factor *= self.growth
        return Decision(factor)

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on (val_loss, progress)."""
        return self.decide(float(observation[0]), float(observation[1]))

    def on_loss_increase(self, val_loss: float, factor: float = 1.0) -> Decision:
        """Step back, and ramp no more."""
        self._memory["ramping"] = False
        return super().on_loss_increase(val_loss, factor)

    def _cooled(self, progress: float) -> float:
        """Return the factor of the cooldown at a share of the run, in (0, 1]."""
        if self.cooldown == 0.0:
            return 1.0
        elapsed = (progress - (1.0 - self.cooldown)) / self.cooldown
        return max(ANNEALED, 1.0 - math.sqrt(min(1.0, max(0.0, elapsed))))
