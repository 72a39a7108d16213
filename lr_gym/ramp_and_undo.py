"""Ramp and undo: a rule that needs no tuned learning rate, only one step back.

It starts far below the rate it is given and multiplies it up while the validation loss
does not rise; at the first rise it takes the last chunk of training back, divides the
rate, and holds. Any later rise is taken back the same way. The last part of the run is
a cooldown by 1 - sqrt (Haegele et al. 2024, arXiv 2405.18392). The rule itself is ours:
chosen because a rate that is too high in the first chunks does damage that no later
rate repairs, and a rise that is undone at once does not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lr_gym.config import check_real


class Decision(NamedTuple):
    """What the rule wants before the next chunk of training.

    Attributes:
        factor: What the learning rate is multiplied by, 0 or above.
        undo: Whether weights and optimizer first go back to before the last chunk.
    """

    factor: float
    undo: bool


class RampAndUndo:
    """The rule, for one run: it sees a validation loss and answers with a decision."""

    def __init__(
        self,
        *,
        start: float = 1 / 300,
        growth: float = 2.0,
        tolerance: float = 0.03,
        undo_factor: float = 3.0,
        cooldown: float = 0.3,
    ) -> None:
        """Set the rule.

        Args:
            start: The first rate as a share of the one that is given, in (0, 1].
            growth: What the rate is multiplied by at each decision of the ramp, above
                1.
            tolerance: A loss this many nats above the last accepted one is no rise yet,
                0 or more.
            undo_factor: What an undo divides the rate by, above 1.
            cooldown: Share of the run that is the cooldown, in (0, 1).

        Raises:
            TypeError: An argument is no number.
            ValueError: An argument is out of range.
        """
        check_real("start", start, 0.0, 1.0, low_open=True)
        check_real("growth", growth, 1.0, low_open=True)
        check_real("tolerance", tolerance, 0.0)
        check_real("undo_factor", undo_factor, 1.0, low_open=True)
        check_real("cooldown", cooldown, 0.0, 1.0, low_open=True, high_open=True)
        self.start = start
        self.growth = growth
        self.tolerance = tolerance
        self.undo_factor = undo_factor
        self.cooldown = cooldown
        self.reset()

    def reset(self) -> None:
        """Forget the last run."""
        self._accepted: float | None = None  # loss of the weights that an undo restores
        self._ramping = True
        self._cooled = 1.0  # the cooldown's factor that is in the rate already

    def decide(self, val_loss: float, progress: float) -> Decision:
        """Return what to do before the next chunk.

        Args:
            val_loss: Validation loss now, nats; NaN and infinity count as a rise.
            progress: Share of the run that is spent, in [0, 1].
        """
        undo = False
        if self._accepted is None:  # nothing was trained yet
            factor = self.start
        elif not val_loss <= self._accepted + self.tolerance:
            factor, undo, self._ramping = 1.0 / self.undo_factor, True, False
        else:
            in_time = progress < 1.0 - self.cooldown
            factor = self.growth if self._ramping and in_time else 1.0
        if not undo:
            self._accepted = val_loss
        cooled = self._cooldown_factor(progress)
        factor *= cooled / self._cooled if self._cooled > 0 else 0.0
        self._cooled = cooled
        return Decision(factor, undo)

    def _cooldown_factor(self, progress: float) -> float:
        spent = (progress - (1.0 - self.cooldown)) / self.cooldown
        return 1.0 - math.sqrt(min(1.0, max(0.0, spent)))
