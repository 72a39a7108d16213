"""How far one update moves an optimizer's weights, relative to their size."""

from __future__ import annotations

from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


class UpdateRatio:
    """Measures single updates: the norm of the change over the norm of the weights.

    Attributes:
        value: Of the last update that was measured; `None` before any.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        """Measure the updates of `optimizer`; nothing is copied yet."""
        self.optimizer = optimizer
        self.value: float | None = None
        self._before: list[Tensor] | None = None

    def before_update(self) -> None:
        """Copy the weights: the update to come is measured."""
        self._before = [weight.detach().clone() for weight in self._weights()]

    def after_update(self) -> None:
        """Compare with the copy, if there is one, and let it go."""
        if self._before is None:
            return
        before, self._before = self._before, None
        pairs = zip(self._weights(), before, strict=True)
        change = get_total_norm([weight.detach() - old for weight, old in pairs])
        self.value = float(change / get_total_norm(before).clamp(min=1e-12))

    def _weights(self) -> list[Tensor]:
        return [w for group in self.optimizer.param_groups for w in group["params"]]
