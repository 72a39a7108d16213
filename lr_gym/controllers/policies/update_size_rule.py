"""The update-size rule: steer how far an update moves a layer's outputs.

The update size shows earlier than the loss whether a learning rate is far off: within a
few iterations, and at a learning rate too low to damage the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies.policy import Decision
from lr_gym.controllers.policies.rule import Rule
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_real

DEADBAND = 1.1  # within this factor of the target the learning rate is kept
MAX_UNDERSHOOT = 4.0  # one decision may go to target / MAX_UNDERSHOOT from anywhere
MAX_LOSS_RISES = 2  # after this many loss increases the rule stops steering
MAX_GROWTH = 1e3  # upper bound of `growth` and `most_rise`
MIN_FACTOR = 1e-12  # per decision, so that the learning rate never becomes 0
MIN_UPDATE_SIZE = 1.001e-8  # the feature is clipped just below this size


class UpdateSizeRule(Rule):
    """A state machine over (val_loss, update size, progress); one run at a time.

    - The first decision multiplies the learning rate by `start_factor`.
    - Over the first `steering` of the run, the decisions bring the update size (see
      `lr_gym.trainers.update_size`) to `target`. A decision may raise a smaller size
      to a quarter of the target at once. Above that, `growth` limits each decision,
      because fresh weights are easily damaged.
    - Gradients align less and less during training, which shrinks Adam's updates. To
      keep their size, the learning rate goes on rising after the target is reached, by
      `most_rise` in all. Without this limit, a run that stalls would stall longer: its
      gradients no longer align, so the learning rate would rise further.
    - Then the learning rate is held, and the base schedule ``wsd`` cools the run down.
    - If the loss rises by more than `tolerance`, the rule undoes the last chunk and
      divides the learning rate by `undo_factor`. It goes on steering after the first
      such increase, which may be chance, and stops at the second.

    Yang and Hu 2021 (arXiv 2011.14522) and Yang et al. 2023 (arXiv 2310.17813) show
    that the change of a layer's outputs should not depend on its width, for updates
    that align with the layer's inputs. Here the median layer sets one learning rate for
    all weights.

    >>> rule = UpdateSizeRule(target=0.08, growth=2.0)
    >>> rule.decide(4.0, 0.0)
    Decision(factor=0.0033333333333333335, undo=False)
    >>> rule.decide(4.0, 0.0002).factor  # 400 times too small: to a quarter
    100.0
    >>> rule.decide(3.5, 0.02)
    Decision(factor=2.0, undo=False)
    >>> rule.decide(3.4, 0.16, progress=0.3)  # past `steering`: held
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
        """Set the parameters.

        Args:
            start_factor: First factor on the initial learning rate, in (0, 1].
            target: The update size to steer to, in (0, 1].
            growth: Largest factor per decision near the target, in (1, 1000].
            most_rise: Largest total factor after the target is reached, in [1, 1000].
            steering: Share of the run that is steered, in (0, 1].
            tolerance: Largest loss increase without a reaction, at least 0, nats.
            undo_factor: Divides the learning rate at a loss increase, above 1.
            undo: Whether to undo the last chunk at a loss increase. Without undo, only
                the learning rate is lowered.
            min_lr: Lower bound of the learning rate.
            max_lr: Upper bound of the learning rate.

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
        check_real("growth", growth, 1.0, MAX_GROWTH, low_open=True)
        check_real("most_rise", most_rise, 1.0, MAX_GROWTH)
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
        """Return the initial memory: no increase yet, target not reached."""
        return {"n_loss_rises": 0, "lr_growth_since_target": None}

    def decide(
        self, val_loss: float, update_size: float, progress: float = 0.0
    ) -> Decision:
        """Return the next factor on the learning rate, and whether to undo.

        Args:
            val_loss: Validation loss of the current weights, nats; NaN counts as an
                increase.
            update_size: Size of the last update; 0 before any.
            progress: Share of the run's iterations completed, in [0, 1].
        """
        memory = self._memory
        if not memory["started"]:
            self.set_reference_loss(val_loss)
            return self.start()
        if self.loss_rose(val_loss):
            return self.on_loss_increase(val_loss)
        self.set_reference_loss(val_loss)
        if progress > self.steering or memory["n_loss_rises"] >= MAX_LOSS_RISES:
            return Decision(1.0)
        return Decision(self.steer(update_size))

    def steer(self, update_size: float) -> float:
        """Return the next factor towards the target, and track its growth limit."""
        memory = self._memory
        needed = max(MIN_FACTOR, self.target / max(update_size, MIN_UPDATE_SIZE))
        growth = memory["lr_growth_since_target"]
        if growth is None and 1.0 / MAX_UNDERSHOOT <= needed <= DEADBAND:
            growth = 1.0  # the target is reached
        if not update_size > MIN_UPDATE_SIZE:
            factor = self.growth
        elif 1.0 / DEADBAND <= needed <= DEADBAND:
            factor = 1.0
        else:
            factor = max(needed / MAX_UNDERSHOOT, min(needed, self.growth))
        if growth is not None:
            factor = min(factor, self.most_rise / growth)
            memory["lr_growth_since_target"] = growth * factor
        return factor

    def act(self, observation: NDArray[np.float32]) -> Decision:
        """Decide on (val_loss, log10 of the update size, progress), (3,) float32."""
        val_loss, log_size, progress = map(float, observation)
        return self.decide(val_loss, 10.0**log_size, progress)

    def on_loss_increase(self, val_loss: float, factor: float = 1.0) -> Decision:
        """Step back as `Rule.on_loss_increase`, and count the increase."""
        memory = self._memory
        memory["n_loss_rises"] += 1
        decision = super().on_loss_increase(val_loss, factor)
        if memory["lr_growth_since_target"] is not None:
            memory["lr_growth_since_target"] *= decision.factor
        return decision
