"""Measures updates: their size, and how they align with the gradients after them.

A tensor of more than `SAMPLE` numbers is measured on a regular sample of them, so the
cost does not grow with the model. Nothing is measured outside `before` and `after`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from lr_gym.trainers.update_size import RELATIVE_CHANGE_FACTOR

SAMPLE = 2**16


@dataclass(frozen=True)
class Measure:
    """One update, t, with weights' change u(t) and gradients g(t).

    Attributes:
        size: See `lr_gym.trainers.update_size`; the largest over parameter groups.
        later: g(t) u(t - 1), 0 if the update before was not measured.
        own: g(t - 1) u(t - 1), likewise.
        skipped: Whether gradients were not finite and the weights did not change, as
            under a GradScaler.
    """

    size: float
    later: float
    own: float
    skipped: bool


@dataclass
class _Weight:
    """A weight before the update; samples in float32."""

    weight: Tensor
    group: int
    scale: float  # numbers per sampled number, over the processes that hold them
    old: Tensor

    @property
    def is_measured(self) -> bool:
        """Whether it has a dense gradient, after the update."""
        return self.weight.grad is not None and not self.weight.grad.is_sparse

    @cached_property
    def gradient(self) -> Tensor:
        """Its gradient, after the update: `optimizer.step(closure)` makes it then."""
        return _sample(self.weight.grad).contiguous().float()  # type: ignore[arg-type]  # see is_measured


class UpdateMeter:
    """Measures single updates of an optimizer; several processes measure the same."""

    def __init__(self, optimizer: Optimizer) -> None:
        """Choose the optimizer; nothing is copied yet."""
        self.optimizer = optimizer
        self._weights: list[_Weight] = []
        self._changes: dict[int, Tensor] = {}  # u(t - 1) by the weight's id
        self._own = 0.0
        self._from_zero: set[int] = set()  # weights that were zero: no relative change

    def forget(self) -> None:
        """Free the samples: the next update has no one before it."""
        self._weights, self._changes, self._own = [], {}, 0.0

    def before(self) -> None:
        """Sample the weights, before an update."""
        self._weights = [
            _Weight(
                weight,
                index,
                _scale(weight),
                _sample(weight).clone().float(),
            )
            for index, group in enumerate(self.optimizer.param_groups)
            for weight in group["params"]
            if (weight.requires_grad or weight.grad is not None) and weight.numel()
        ]

    def after(self) -> Measure:
        """Measure the update, and keep it for the next one.

        Raises:
            ValueError: No weight has a dense gradient.
        """
        weights, self._weights = [w for w in self._weights if w.is_measured], []
        if not weights:
            raise ValueError("the optimizer has no weight with a dense gradient")
        before, changes = self._changes, {}
        later, own, change_norms, old_norms = [], [], [], []
        for w in weights:
            change = _sample(w.weight).float() - w.old
            changes[id(w.weight)] = change
            previous = before.get(id(w.weight), change[:0])
            aligned = w.gradient[: len(previous)] @ previous
            later.append(aligned * w.scale)
            own.append((w.gradient @ change) * w.scale)
            change_norms.append((change @ change) * w.scale)
            old_norms.append((w.old @ w.old) * w.scale)
        device = later[0].device
        rows = [torch.stack([x.to(device) for x in row]) for row in (later, own)]
        rows += [
            torch.stack([x.to(device) for x in row])
            for row in (change_norms, old_norms)
        ]
        table = torch.stack(rows).double()
        if _processes() > 1:
            dist.all_reduce(table)
        sums, norms = table[:2].sum(dim=1).tolist(), table[2:].sqrt().tolist()
        moved = any(norms[0])
        for w, norm in zip(weights, norms[1], strict=True):
            if norm == 0.0:
                self._from_zero.add(id(w.weight))
        measure = Measure(
            self._size(weights, *norms),
            sums[0],
            self._own,
            skipped=not math.isfinite(sums[1]) and not moved,
        )
        finite = math.isfinite(sums[1])
        self._changes, self._own = (changes, sums[1]) if finite else ({}, 0.0)
        return measure

    def _size(
        self, weights: list[_Weight], changes: list[float], olds: list[float]
    ) -> float:
        """Return the size of an update from the norms of all changes and old weights.

        Weights that did not move do not count, nor do vectors beside matrices. Groups
        may have very different rates: the group whose outputs move most counts. Weights
        that were zero have no relative change: it would be large for long.
        """
        groups: dict[int, list[tuple[float, float, int]]] = {}
        matrices = any(w.weight.dim() > 1 for w in weights)
        for w, change, old in zip(weights, changes, olds, strict=True):
            if change == 0.0 or (matrices and w.weight.dim() < 2):
                continue
            rows = w.weight.shape[0] if w.weight.dim() else 1
            relative = 0.0 if id(w.weight) in self._from_zero else change / old
            entry = change / math.sqrt(rows), relative, w.weight.numel() // rows
            groups.setdefault(w.group, []).append(entry)
        sizes = [0.0]
        for entries in groups.values():
            outputs, relatives, columns = zip(*entries, strict=True)
            output = median(outputs) * math.sqrt(median(columns))
            sizes.append(max(output, RELATIVE_CHANGE_FACTOR * median(relatives)))
        return max(sizes)


def _local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that FSDP has split."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()


def _sample(tensor: Tensor) -> Tensor:
    """Return at most `SAMPLE` numbers of a tensor, evenly spaced."""
    flat = _local(tensor).reshape(-1)
    return flat[:: max(1, math.ceil(flat.numel() / SAMPLE))]


def _scale(weight: Tensor) -> float:
    """Return how many numbers a sampled one stands for, divided by its copies."""
    part = _local(weight).numel()
    sampled = math.ceil(part / max(1, math.ceil(part / SAMPLE)))
    return part / max(1, sampled) / math.prod(_copies(weight))


def _copies(weight: Tensor) -> Iterator[int]:
    """Yield factors of the number of processes that hold the same part of a weight."""
    placements = getattr(weight, "placements", None)  # of FSDP's tensors
    if placements is None:
        yield _processes()
        return
    mesh = weight.device_mesh  # type: ignore[attr-defined]  # they have one
    for axis, placement in enumerate(placements):
        if placement.is_replicate():
            yield mesh.size(axis)


def _processes() -> int:
    """Return the number of processes that train together."""
    ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if ready else 1
