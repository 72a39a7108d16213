"""Sums over the processes that train one model together, and parts of its tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer


def count_processes() -> int:
    """Return the number of processes that train together."""
    ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if ready else 1


def sum_over_processes(values: Sequence[float], optimizer: Optimizer) -> list[float]:
    """Return each number's sum over all processes; every process must call this.

    Args:
        values: As many in every process.
        optimizer: The sums are made on the device of its first weight.
    """
    if count_processes() == 1:
        return list(values)
    weights = (w for group in optimizer.param_groups for w in group["params"])
    first: Tensor = next(weights)
    sums = torch.tensor(values, dtype=torch.float64, device=first.device)
    dist.all_reduce(sums)
    numbers: list[float] = sums.tolist()
    return numbers


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that FSDP has split, without gradients."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()
