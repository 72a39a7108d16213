"""The size of an optimizer's single updates, in somebody's own loop."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from lr_gym.trainers.update_size import update_size


class UpdateSizeMeter:
    """Measures single updates by `lr_gym.trainers.update_size.update_size`.

    Over those weights that have a gradient and two dimensions or more; over all that
    have a gradient where none has.

    Attributes:
        value: Of the last update that was measured; `None` before any.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        """Measure the updates of `optimizer`; nothing is copied yet."""
        self.optimizer = optimizer
        self.value: float | None = None
        self._before: list[tuple[Tensor, Tensor]] | None = None

    def before_update(self) -> None:
        """Copy the weights: the update to come is measured."""
        self._before = [(weight, weight.detach().clone()) for weight in self._weights()]

    def after_update(self) -> None:
        """Compare with the copy, if there is one, and let it go."""
        pairs, self._before = self._before, None
        if pairs:  # one transfer, however many weights
            before = [old[None] for _, old in pairs]
            after = [weight.detach()[None] for weight, _ in pairs]
            self.value = float(update_size(before, after))

    def _weights(self) -> list[Tensor]:
        weights = [
            weight
            for group in self.optimizer.param_groups
            for weight in group["params"]
            if weight.grad is not None
        ]
        return [weight for weight in weights if weight.dim() >= 2] or weights
