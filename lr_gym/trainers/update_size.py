"""How far one update moves a model: it says what a rate does before the loss does.

Outputs first: what should not depend on a model's width is how far an update may move
what a layer puts out. But a narrow model comes to that size by updates that are large
beside its weights, and fresh weights moved by a tenth of themselves, time and again,
stall at a loss that they leave late or never. So the weights have a say as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

WEIGHTS = 1.2  # what a relative change of the weights counts, beside one of the outputs


def update_size(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Return the size of an update, (E,) float32: the larger of two.

    Of the outputs: the median over matrices of norm(change) / sqrt(rows), a row per
    output, times the square root of their median number of columns. For inputs of unit
    variance the first factor is the root mean square change of a layer's outputs where
    the inputs are independent of the update; the second is what it grows by where they
    line up with it, as they do in training (Yang et al. 2023, arXiv 2310.17813).

    Of the weights: `WEIGHTS` times the median of norm(change) / norm(weights); 0 for a
    matrix that is still zero. Of transformers with weights of deviation 0.02 it is the
    larger one below a width of some 60, and early; that updates should be small beside
    the weights is from You et al. 2017 (arXiv 1708.03888).

    Args:
        before: The weights of E members, one tensor (E, ...) per matrix; of a vector
            every entry is a row.
        after: The same, one update later.
    """
    outputs, weights, columns = [], [], []
    for old, new in zip(before, after, strict=True):
        rows = max(1, old.shape[1]) if old.dim() > 1 else 1
        columns.append(old[0].numel() // rows)
        change = _norm(new - old)
        outputs.append(change / math.sqrt(rows))
        own = _norm(old)
        weights.append(torch.where(own > 0.0, change / own, 0.0))
    of_outputs = _median(outputs) * math.sqrt(median(columns))
    return torch.maximum(of_outputs, WEIGHTS * _median(weights))


def _norm(members: Tensor) -> Tensor:
    """Return members' norms in float32: half precision's would overflow."""
    norms: Tensor = members.float().reshape(len(members), -1).norm(dim=1)
    return norms


def _median(values: Sequence[Tensor]) -> Tensor:
    """Return members' medians over matrices, which may lie on several devices."""
    together = torch.stack([value.to(values[0].device) for value in values])
    return together.quantile(0.5, dim=0)
