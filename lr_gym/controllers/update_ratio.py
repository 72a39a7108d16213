"""How far one update moves an optimizer's weights, relative to their size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


class UpdateRatio:
    """Measures single updates, as `Objective.update_ratio` does: of a typical matrix.

    The median of norm(change) / norm(weight) over those weights that have a gradient
    and two dimensions or more; over all that have a gradient where none has.

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
        if self._before is None:
            return
        ratios = [
            _norm(weight.detach() - old) / _norm(old).clamp(min=1e-12)
            for weight, old in self._before
        ]
        self._before = None
        if ratios:  # one transfer, however many weights
            together = [ratio.to(ratios[0].device) for ratio in ratios]
            self.value = float(torch.stack(together).median())

    def _weights(self) -> list[Tensor]:
        weights = [
            weight
            for group in self.optimizer.param_groups
            for weight in group["params"]
            if weight.grad is not None
        ]
        return [weight for weight in weights if weight.dim() >= 2] or weights


def _norm(values: Tensor) -> Tensor:
    """Return the norm in float32: half precision's would overflow."""
    norm: Tensor = values.float().norm()
    return norm
