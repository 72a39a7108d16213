"""The controller in a user's run."""

from __future__ import annotations

from benchmarks.controller.users.pilots import Pilot, RefusedError
from benchmarks.controller.users.tasks import Training
from lr_gym.controllers import ControllerLR


class Controlled(Pilot):
    """Today's `ControllerLR`, by the text of its documentation."""

    evaluates = True

    def __init__(
        self,
        training: Training,
        lr: float,
        iterations: int,
        *,
        interval: int | None = None,
    ) -> None:
        """See `Pilot`; `interval` is of evaluations, 50 a run by default."""
        super().__init__(training, lr, iterations)
        self._controllers = [
            ControllerLR(
                optimizer,
                interval=interval or max(1, iterations // 50),
                max_iters=iterations,
                undo=training.model,
            )
            for optimizer in self.optimizers
        ]

    def evaluated(self, loss: float) -> None:
        """Decide.

        Raises:
            RefusedError: The loss is negative, or too large to be one in nats.
        """
        for controller in self._controllers:
            if controller.needs_evaluation:
                try:
                    controller.step(loss)
                except ValueError as error:
                    raise RefusedError(str(error)) from error
