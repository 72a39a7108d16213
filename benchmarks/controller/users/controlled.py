"""The controller in a user's run."""

from __future__ import annotations

from benchmarks.controller.users.pilots import Pilot
from benchmarks.controller.users.tasks import Training
from lr_gym.controllers import ControllerLR


class Controlled(Pilot):
    """`ControllerLR`, without any evaluation; one per optimizer."""

    def __init__(self, training: Training, lr: float, iterations: int) -> None:
        """See `Pilot`."""
        super().__init__(training, lr, iterations)
        self._controllers = [
            ControllerLR(optimizer, total_steps=iterations)
            for optimizer in self.optimizers
        ]
