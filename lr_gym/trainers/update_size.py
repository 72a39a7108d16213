"""How far one update moves a model, which shows too high a learning rate early.

The size that should not depend on a model's width is the change of a layer's outputs.
In narrow models the same output change needs updates that are large relative to the
weights. Repeated updates of a tenth of the weights stall a fresh model at a high loss.
So the update size is the larger of the output change and the relative weight change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

RELATIVE_CHANGE_FACTOR = 1.2  # multiplies the relative change of the weights


def update_size(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Return the size of an update, (E,) float32: the larger of two changes.

    **Output change**: the median over matrices of norm(change) / sqrt(rows), with one
    row per output, times the square root of the median number of columns. For inputs
    of unit variance that are independent of the update, the first factor is the root
    mean square change of a layer's outputs. In training the inputs align with the
    update, which multiplies the change by the second factor (Yang et al. 2023, arXiv
    2310.17813).

    **Weight change**: `RELATIVE_CHANGE_FACTOR` times the median over matrices of
    norm(change) / norm(weights), 0 for a matrix of zeros. In transformers with initial
    weights of standard deviation 0.02 it is the larger one early in training and below
    a width of about 60. You et al. 2017 (arXiv 1708.03888) keep this ratio small.

    Args:
        before: The weights of E members, one tensor (E, ...) per matrix. Every entry of
            a vector is a row.
        after: The same, one update later.
    """
    output_changes, weight_changes, column_counts = [], [], []
    for old, new in zip(before, after, strict=True):
        n_rows = max(1, old.shape[1]) if old.dim() > 1 else 1
        column_counts.append(old[0].numel() // n_rows)
        change, old_norm = _norms(new - old), _norms(old)
        output_changes.append(change / math.sqrt(n_rows))
        weight_changes.append(torch.where(old_norm > 0.0, change / old_norm, 0.0))
    output_change = _medians(output_changes) * math.sqrt(median(column_counts))
    weight_change = RELATIVE_CHANGE_FACTOR * _medians(weight_changes)
    return torch.maximum(output_change, weight_change)


def _norms(tensor: Tensor) -> Tensor:
    """Return each member's norm, (E,); float32, since half precision would overflow."""
    norms: Tensor = tensor.float().reshape(len(tensor), -1).norm(dim=1)
    return norms


def _medians(values: Sequence[Tensor]) -> Tensor:
    """Return each member's median over matrices, (E,), on the first one's device."""
    stacked = torch.stack([value.to(values[0].device) for value in values])
    return stacked.quantile(0.5, dim=0)
