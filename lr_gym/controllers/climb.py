"""The controller's rule: a safe start, a climb while updates pay, a hold, a cooldown.

Notation: update t moves the weights by u(t) along gradients g(t) of its batch. To first
order the loss falls by -g(t) u(t). The gradients of the next batch, at the new weights,
say how fast it still falls along the same direction: -g(t + 1) u(t). Where this is
positive, a longer step would have lowered the loss more; where it is negative, a
shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lr_gym.validation import (
    check_boolean,
    check_complete,
    check_integer,
    check_mapping,
    check_real,
)

START = 1.0 / 300.0  # of the user's rate, so that one 30 times too high is harmless
SAFE_SIZE = 0.02  # of an update: 3 to 10 times below that at good rates
SAFE_STEPS = 16  # the safe start may take so many updates in a short run
SAFE_SHARE = 0.06  # and this share of a long one
GROWTH = 1.25  # per update near the safe size
JUMP = 4.0  # per update far below it
CLIMB_SHARE = 0.3  # the climb ends after this share of the run
CLIMB = 200.0  # most over a tenth of the run
CLIMB_GROWTH = 1.1  # and per update: momentum shows a rate's effect after ten updates
LIFT = 2.0  # what the climb adds where the alignment is about 0
SLACK = 0.3  # and it adds nothing where the alignment is below minus this
MEMORY = 1.0 / 60.0  # of the alignment, as a share of the run
COOLDOWN = 0.3  # share of the run over which the rate falls to zero


class Climb:
    """Chooses the factor on the user's learning rates, update by update.

    1. *Safe start.* From `START`, raise the rate until an update has `SAFE_SIZE`.
    2. *Climb.* Until `CLIMB_SHARE` of the run, raise it in proportion to the alignment,
       and slowly, by `LIFT` in all, where that is about 0.
    3. *Hold*, then fall linearly to zero over the last `COOLDOWN` of the run.

    The alignment is a mean of -g(t + 1) u(t) over a mean of |g(t) u(t)|. It has no
    unit. It is 1 where the gradient does not change, 0 where a step ends at the lowest
    loss along its direction, -1 where the loss is as high after a step as before. The
    best rates are some times higher than those at 0, because the cooldown removes what
    too long steps cost. How much, the alignment does not tell: with noisy batches it
    stays near 0 at all rates. Hence the slow part of the climb, which is bounded.

    Attributes:
        total_steps: Updates of the whole run, N.
        step: Updates made.
        factor: On the user's rates for the next update, before `cooldown`.
        starting: Whether the safe start lasts.
    """

    def __init__(self, total_steps: int) -> None:
        """Start a run."""
        self.total_steps = total_steps
        self.step = 0
        self.factor = START
        self.starting = True
        self._later = self._own = 0.0  # means of -g(t + 1) u(t) and |g(t) u(t)|

    @property
    def measures(self) -> bool:
        """Whether the next update is to be measured."""
        return self.step < CLIMB_SHARE * self.total_steps

    @property
    def alignment(self) -> float:
        """How well the last updates align with the gradients after them; at most 1."""
        return min(1.0, self._later / self._own) if self._own > 0.0 else 0.0

    def cooldown(self) -> float:
        """Return the factor of the cooldown for the next update, above 0."""
        left = max(1, self.total_steps - self.step)
        return min(1.0, left / (COOLDOWN * self.total_steps))

    def skip_measure(self) -> None:
        """Count an update that was not measured."""
        self.step += 1

    def observe(self, size: float, later: float, own: float) -> None:
        """Count a measured update, and choose the factor of the next one.

        Args:
            size: Of the update, t; see `UpdateMeter`.
            later: g(t) u(t - 1); 0 if there is none.
            own: g(t - 1) u(t - 1); likewise.
        """
        self.step += 1
        horizon = max(4.0, MEMORY * self.total_steps)
        keep = 1.0 - 1.0 / horizon
        self._later = keep * self._later - later
        self._own = keep * self._own + abs(own)
        if self.starting:
            self._approach(SAFE_SIZE / max(size, 1e-12))
        elif self.measures:
            growth = min(CLIMB_GROWTH, CLIMB ** (10.0 / self.total_steps))
            slow = min(1.0, max(0.0, 1.0 + self.alignment / SLACK))
            self.factor *= growth ** max(0.0, self.alignment)
            self.factor *= LIFT ** (slow / (CLIMB_SHARE * self.total_steps))

    def _approach(self, needed: float) -> None:
        """Go towards the safe size, which is `needed` times the last one."""
        growth = max(GROWTH, min(needed / JUMP, JUMP))
        self.factor *= max(1.0 / JUMP, min(needed, growth))
        late = self.step >= max(SAFE_STEPS, SAFE_SHARE * self.total_steps)
        if needed < GROWTH or late or self.alignment < 0.0:
            self.starting = False

    def step_back(self, factor: float) -> None:
        """Lower the rate after damage, to `START` at least; forget the alignment."""
        self.factor = max(START, self.factor * factor)
        self.starting = False
        self._later = self._own = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the state, ready for JSON."""
        return {
            "total_steps": self.total_steps,
            "step": self.step,
            "factor": self.factor,
            "starting": self.starting,
            "later": self._later,
            "own": self._own,
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check a state that `load_state_dict` is to load.

        Raises:
            TypeError: An entry is missing, unknown or of the wrong type.
            ValueError: A number is out of range, or the state is from the cooldown of a
                run of another length, or from after the end of this run.
        """
        check_mapping("climb", state)
        check_complete("climb", state, tuple(self.state_dict()))
        check_integer("total_steps", state["total_steps"], 1)
        check_integer("step", state["step"], 0)
        check_real("factor", state["factor"], 0.0, low_open=True)
        check_boolean("starting", state["starting"])
        check_real("later", state["later"], -math.inf)
        check_real("own", state["own"], 0.0)
        old, step = state["total_steps"], state["step"]
        cooling = step > (1.0 - COOLDOWN) * old
        if old != self.total_steps and cooling:
            raise ValueError(
                f"the state is from the cooldown of a run of {old} updates, at update "
                f"{step}; a run of {self.total_steps} must continue from a checkpoint "
                f"of update {math.floor((1.0 - COOLDOWN) * old)} or earlier, or pass "
                f"total_steps={old}"
            )
        if old != self.total_steps < step:
            raise ValueError(
                f"the state is from update {step}, after the end of a run of "
                f"{self.total_steps}: pass a larger total_steps"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checked state, also in a run of another length."""
        self.step = state["step"]
        self.factor = float(state["factor"])
        self.starting = state["starting"]
        self._later, self._own = float(state["later"]), float(state["own"])
