"""The update-size rule: steer how far an update may move a layer.

That says whether a learning rate is far off before the loss can: within a few
iterations, at a rate so low that nothing is damaged, and of whatever rate the run was
given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies.policy import Decision
from lr_gym.controllers.policies.rule import Rule
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_real

DEADBAND = 1.1  # within this factor of the target the rate is left alone
MAX_UNDERSHOOT = 4.0  # how far below the target one decision may go from anywhere
MAX_LOSS_RISES = 2  # rises, after which nothing is steered
MOST_GROWTH = 1e3  # per decision
MIN_FACTOR = 1e-12  # of a single factor: a rate never becomes 0
MIN_UPDATE_SIZE = 1.001e-8  # the feature knows no smaller size, 0 included


class UpdateSizeRule(Rule):
    """A state machine over (val_loss, update size, progress); one run at a time.

    The first decision multiplies the learning rate by `start_factor`. Those over the
    first `steering` of the run bring the update size (see
    `lr_gym.trainers.update_size`) to `target`: at once to a fourth of it, then by
    `growth` at most, since fresh weights are easily damaged. Gradients agree less and
    less, and Adam's updates shrink by it: to keep their size the rate goes on rising a
    little. By `most_rise` at most, since in a run that stalls they no longer agree at
    all, and a rate that followed would prolong it. Then the rate is held, and the
    ``wsd`` schedule under it cools the run down. A loss that rises by more than
    `tolerance` is answered at any time: the last chunk is taken back and the rate
    divided by `undo_factor`. The first such rise is taken for chance, and the steering
    goes on; a second one ends it.

    That the change of a layer's outputs is what should not depend on its width, with
    updates that line up with its inputs, is from Yang and Hu 2021 (arXiv 2011.14522)
    and Yang et al. 2023 (arXiv 2310.17813); here the median layer sets one rate for all
    weights.

    >>> rule = UpdateSizeRule(target=0.08, growth=2.0)
    >>> rule.decide(4.0, 0.0)
    Decision(factor=0.0033333333333333335, undo=False)
    >>> rule.decide(4.0, 0.0002).factor  # 400 times too low: up to a fourth of it
    100.0
    >>> rule.decide(3.5, 0.02)
    Decision(factor=2.0, undo=False)
    >>> rule.decide(3.4, 0.16, progress=0.3)  # no longer steered, but held
    Decision(factor=1.0, undo=False)
    """

    def __init__(
        self,
        *,
        start_factor: float = 1.0 / 300.0,
        target: float = 0.07,
        growth: float = 1.4,
        most_rise: float = 1.5,
        steering: float = 0.25,
        tolerance: float = 0.1,
        undo_factor: float = 3.0,
        undo: bool = True,
        min_lr: float = 1e-9,
        max_lr: float = 10.0,
    ) -> None:
        """Set the rule.

        Args:
            start_factor: Of the given learning rate, what to start from, in (0, 1].
            target: The update size to steer to, in (0, 1].
            growth: Largest factor per decision close to the target, in (1, 1000].
            most_rise: Largest factor in all once the target was reached, in [1, 1000].
            steering: Share of the run over which the rate is steered, in (0, 1].
            tolerance: The largest rise of the loss that is not answered, nats.
            undo_factor: What a rise divides the rate by, above 1.
            undo: Whether a rise takes the last chunk back. Without, the rate is lowered
                all the same, but the damage stays.
            min_lr: The rate never falls below this.
            max_lr: The rate never rises above this.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range.
        """
        super().__init__(
            start_factor=start_factor,
            target=target,
            growth=growth,
            most_rise=most_rise,
            steering=steering,
            tolerance=tolerance,
            undo_factor=undo_factor,
            undo=undo,
            min_lr=min_lr,
            max_lr=max_lr,
        )
        check_real("target", target, 0.0, 1.0, low_open=True)
        check_real("growth", growth, 1.0, MOST_GROWTH, low_open=True)
        check_real("most_rise", most_rise, 1.0, MOST_GROWTH)
        check_real("steering", steering, 0.0, 1.0, low_open=True)
        self.target = float(target)
        self.growth = float(growth)
        self.most_rise = float(most_rise)
        self.steering = float(steering)
        self.config = MDPConfig(
            features=("val_loss", "update_size", "progress"),
            base_schedule="wsd",
            allow_undo=undo,
            undo_factor=undo_factor,
            min_lr=min_lr,
            max_lr=max_lr,
        )
        self.reset()

    def initial_memory(self) -> dict[str, Any]:
        """Return that the loss has not risen, and the target not been reached."""
        return {"rises": 0, "risen": None}  # since the target was reached: a factor

    def decide(
        self, val_loss: float, update_size: float, progress: float = 0.0
    ) -> Decision:
        """Return the next factor on the learning rate, and whether to undo.

        Args:
            val_loss: Of the weights as they are now; anything but a number is a rise.
            update_size: Of the last update; 0 before any.
            progress: Share of the run's iterations spent, in [0, 1].
        """
        memory = self._memory
        if not memory["started"]:
            self.set_reference_loss(val_loss)
            return self.start()
        if self.loss_rose(val_loss):
            return self.on_loss_increase(val_loss)
        self.set_reference_loss(val_loss)
        if progress > self.steering or memory["rises"] >= MAX_LOSS_RISES:
            return Decision(1.0)
        return Decision(self.steer(update_size))

    def steer(self, update_size: float) -> float:
        """Return the next factor towards the target, and note what it adds up to."""
        memory = self._memory
        missing = max(MIN_FACTOR, self.target / max(update_size, MIN_UPDATE_SIZE))
        if memory["risen"] is None and 1.0 / MAX_UNDERSHOOT <= missing <= DEADBAND:
            memory["risen"] = 1.0
        if not update_size > MIN_UPDATE_SIZE:
            factor = self.growth
        elif 1.0 / DEADBAND <= missing <= DEADBAND:
            factor = 1.0
        else:
            factor = max(missing / MAX_UNDERSHOOT, min(missing, self.growth))
        if memory["risen"] is not None:
            factor = min(factor, self.most_rise / memory["risen"])
            memory["risen"] *= factor
        return factor

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on (val_loss, log10 of the update size, progress)."""
        val_loss, log_size, progress = map(float, observation)
        return self.decide(val_loss, 10.0**log_size, progress)

    def on_loss_increase(self, val_loss: float, factor: float = 1.0) -> Decision:
        """Step back, and count the rise."""
        memory = self._memory
        memory["rises"] += 1
        decision = super().on_loss_increase(val_loss, factor)
        if memory["risen"] is not None:
            memory["risen"] *= decision.factor
        return decision
