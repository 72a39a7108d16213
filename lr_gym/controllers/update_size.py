"""How far one update of an optimizer may move the outputs of a typical layer."""

from __future__ import annotations

import math
from statistics import median

import torch
from torch import Tensor
from torch.optim import Optimizer


class UpdateSize:
    """Measures single updates, as `Objective.update_size` does: of a typical matrix.

    The median of norm(change) / sqrt(rows), times the square root of the median number
    of columns, over those weights that have a gradient and two dimensions or more; over
    all that have a gradient where none has.

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
        sizes = [_size(weight.detach() - old) for weight, old in self._before]
        columns = [old.numel() // _rows(old) for _, old in self._before]
        self._before = None
        if sizes:  # one transfer, however many weights
            together = torch.stack([size.to(sizes[0].device) for size in sizes])
            self.value = float(together.quantile(0.5)) * math.sqrt(median(columns))

    def _weights(self) -> list[Tensor]:
        weights = [
            weight
            for group in self.optimizer.param_groups
            for weight in group["params"]
            if weight.grad is not None
        ]
        return [weight for weight in weights if weight.dim() >= 2] or weights


def _size(change: Tensor) -> Tensor:
    """Return the norm per row, in float32: half precision's would overflow."""
    size: Tensor = change.float().norm() / math.sqrt(_rows(change))
    return size


def _rows(weight: Tensor) -> int:
    """Return the number of a layer's outputs."""
    return max(1, weight.shape[0]) if weight.dim() else 1
