"""Measures the size of an optimizer's updates in a training loop."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from lr_gym.trainers.update_size import update_size


class UpdateSizeMeter:
    """Measures single updates with `lr_gym.trainers.update_size.update_size`.

    It measures the weights that have a gradient and at least two dimensions. If there
    are none, it measures all weights that have a gradient.

    Attributes:
        value: Size of the last measured update; `None` before any.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        """Choose the optimizer; nothing is copied yet."""
        self.optimizer = optimizer
        self.value: float | None = None
        self._before: list[tuple[Tensor, Tensor]] | None = None

    def before_update(self) -> None:
        """Copy the weights, so that the next update is measured."""
        self._before = [(weight, weight.detach().clone()) for weight in self._weights()]

    def after_update(self) -> None:
        """Compare with the copy, if there is one, and free it."""
        pairs, self._before = self._before, None
        if pairs:
            before = [old[None] for _, old in pairs]
            after = [weight.detach()[None] for weight, _ in pairs]
            self.value = float(update_size(before, after))  # the one transfer to host

    def _weights(self) -> list[Tensor]:
        """Return the weights to measure."""
        weights = [
            weight
            for group in self.optimizer.param_groups
            for weight in group["params"]
            if weight.grad is not None
        ]
        return [weight for weight in weights if weight.dim() >= 2] or weights
