"""Measures updates: their size, and how they align with the gradients after them.

A tensor of more than `SAMPLE` numbers is measured on a sample of them, so the cost
hardly grows with the model. Nothing is measured outside `before` and `after`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from lr_gym.controllers.processes import count_processes, local_part, sum_over_processes
from lr_gym.trainers.update_size import RELATIVE_CHANGE_FACTOR
from lr_gym.validation import (
    check_complete,
    check_integer,
    check_mapping,
    check_real,
)

SAMPLE = 2**16
BLOCK = 16  # neighbours in a sample: one line of a processor's cache in float32


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
    place: tuple[int, int]  # index of the group, and in it
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
        self._changes: dict[tuple[int, int], Tensor] = {}  # u(t - 1), by place
        self._own = 0.0
        self._from_zero: set[tuple[int, int]] = set()  # places

    def forget(self) -> None:
        """Free the samples: the next update has no one before it."""
        self._weights, self._changes, self._own = [], {}, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the last measured update: samples of changes by group and weight.

        Parts of weights that FSDP has split are not saved: `changes` is then `None`.
        """
        from_zero = [list(place) for place in sorted(self._from_zero)]
        if not self._changes or self._is_split():
            return {"own": 0.0, "changes": None, "from_zero": from_zero}
        changes = [
            [self._changes.get((i, j)) for j, _ in enumerate(group["params"])]
            for i, group in enumerate(self.optimizer.param_groups)
        ]
        return {"own": self._own, "changes": changes, "from_zero": from_zero}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check a state that `load_state_dict` is to load.

        Raises:
            TypeError: An entry is missing, unknown or of the wrong type.
            ValueError: A number is not finite, or a sample has not its weight's size.
        """
        check_mapping("meter", state)
        check_complete("meter", state, ("own", "changes", "from_zero"))
        check_real("own of meter", state["own"], -math.inf)
        groups = self.optimizer.param_groups
        if not isinstance(state["from_zero"], list | tuple):
            raise TypeError(f"from_zero must be a list, got {state['from_zero']!r}")
        for place in state["from_zero"]:
            _check_list("a place in from_zero", place, 2)
            for index in place:
                check_integer("an index in from_zero", index, 0)
        if state["changes"] is None:
            return
        _check_list("changes", state["changes"], len(groups))
        for group, changes in zip(groups, state["changes"], strict=True):
            _check_list("changes of a group", changes, len(group["params"]))
            for weight, change in zip(group["params"], changes, strict=True):
                if change is not None and not self._is_split():
                    _check_change(change, len(_sample(weight)))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checked state."""
        self.forget()
        self._from_zero = {(place[0], place[1]) for place in state["from_zero"]}
        if state["changes"] is None or self._is_split():
            return
        self._own = float(state["own"])
        for i, group in enumerate(self.optimizer.param_groups):
            for j, weight in enumerate(group["params"]):
                change = state["changes"][i][j]
                if change is not None:
                    self._changes[i, j] = change.to(weight.device, copy=True)

    def _is_split(self) -> bool:
        groups = self.optimizer.param_groups
        return any(hasattr(w, "to_local") for group in groups for w in group["params"])

    def before(self) -> None:
        """Sample the weights, before an update."""
        self._weights = [
            _Weight(
                weight,
                (group_index, index),
                _scale(weight),
                _sample(weight).to(torch.float32, copy=True),
            )
            for group_index, group in enumerate(self.optimizer.param_groups)
            for index, weight in enumerate(group["params"])
            if (weight.requires_grad or weight.grad is not None) and weight.numel()
        ]

    def after(self) -> Measure:
        """Measure the update, and keep it for the next one.

        Raises:
            ValueError: No weight has a dense gradient, or another number of weights
                than in other processes.
        """
        weights, self._weights = [w for w in self._weights if w.is_measured], []
        self._check_counts(weights)
        before, changes = self._changes, {}
        later, own, change_norms, old_norms = [], [], [], []
        for w in weights:
            change = _sample(w.weight).float() - w.old
            changes[w.place] = change
            previous = before.get(w.place)
            aligned = (
                change.new_zeros(()) if previous is None else w.gradient @ previous
            )
            later.append(aligned)
            own.append(w.gradient @ change)
            change_norms.append(change @ change)
            old_norms.append(w.old @ w.old)
        device = later[0].device
        rows = (later, own, change_norms, old_norms)
        table = torch.stack([torch.stack([x.to(device) for x in row]) for row in rows])
        table = _scaled_sum(table, [w.scale for w in weights])
        sums, norms = table[:2].sum(dim=1).tolist(), table[2:].sqrt().tolist()
        moved = any(norms[0])
        for w, norm in zip(weights, norms[1], strict=True):
            if norm == 0.0:
                self._from_zero.add(w.place)
        measure = Measure(
            self._size(weights, *norms),
            sums[0] if math.isfinite(sums[0]) else 0.0,
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
        may have very different rates: the one that moves its outputs most counts.
        Weights that were zero have no relative change: it would be large for long.
        """
        groups: dict[int, list[tuple[float, float, int]]] = {}
        matrices = any(w.weight.dim() > 1 for w in weights)
        for w, change, old in zip(weights, changes, olds, strict=True):
            if change == 0.0 or (matrices and w.weight.dim() < 2):
                continue
            rows = w.weight.shape[0] if w.weight.dim() else 1
            relative = 0.0 if w.place in self._from_zero else change / old
            entry = change / math.sqrt(rows), relative, w.weight.numel() // rows
            groups.setdefault(w.place[0], []).append(entry)
        sizes = [0.0]
        for entries in groups.values():
            outputs, relatives, columns = zip(*entries, strict=True)
            output = median(outputs) * math.sqrt(median(columns))
            sizes.append(max(output, RELATIVE_CHANGE_FACTOR * median(relatives)))
        return max(sizes)

    def _check_counts(self, weights: list[_Weight]) -> None:
        """Raise ValueError, and in all processes alike, if a sum cannot be made."""
        n = len(weights)
        total, squares = sum_over_processes([n, n * n], self.optimizer)
        if not total:
            raise ValueError("the optimizer has no weight with a dense gradient")
        if squares * count_processes() != total * total:
            raise ValueError(
                f"this process has gradients of {n} weights and another process of "
                "more or fewer: every process must train the whole model (DDP), or "
                "a part of every weight (FSDP2)"
            )


def _scaled_sum(table: Tensor, scales: list[float]) -> Tensor:
    """Return `table` with scaled columns, float64, summed over all processes."""
    factors = torch.tensor(scales, dtype=torch.float64)
    if count_processes() == 1:
        return table.cpu().double() * factors  # the only wait for a GPU
    table = table.double() * factors.to(table.device)
    dist.all_reduce(table)
    return table.cpu()


def _check_list(name: str, value: object, length: int) -> None:
    """Raise unless `value` is a list of `length`."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} must be a list, got {value!r}")
    if len(value) != length:
        raise ValueError(f"{name} must have {length} entries, got {len(value)}")


def _check_change(change: object, length: int) -> None:
    """Raise unless `change` is a sample of a weight's change."""
    if not isinstance(change, Tensor) or change.dtype != torch.float32:
        raise TypeError(f"a change must be a tensor of float32, got {change!r}")
    if change.shape != (length,) or not bool(change.isfinite().all()):
        raise ValueError(
            f"a change must be {length} finite numbers, the sample of its weight; got "
            f"a tensor of shape {tuple(change.shape)}"
        )


def _sample(tensor: Tensor) -> Tensor:
    """Return at most `SAMPLE` numbers of a tensor: evenly spaced blocks.

    The spacing has no factor in common with the tensor's sizes. Otherwise the blocks
    would begin in few columns of a matrix, or in one place of a kernel.
    """
    flat = local_part(tensor).reshape(-1)
    spacing = _spacing(flat.numel())
    if spacing == 1:
        return flat
    whole = flat.numel() // BLOCK * BLOCK
    return flat[:whole].view(-1, BLOCK)[::spacing].reshape(-1)


def _spacing(count: int) -> int:
    """Return every how many blocks of a tensor one is sampled."""
    spacing = max(1, math.ceil(count / SAMPLE))
    while math.gcd(spacing, count) > 1:
        spacing += 1
    return spacing


def _scale(weight: Tensor) -> float:
    """Return how many numbers a sampled one stands for, divided by its copies."""
    part = local_part(weight).numel()
    spacing, sampled = _spacing(part), part
    if spacing > 1:
        sampled = math.ceil(part // BLOCK / spacing) * BLOCK
    return part / max(1, sampled) / _copies(weight)


def _copies(weight: Tensor) -> float:
    """Return the number of processes that hold the same part of a weight."""
    placements = getattr(weight, "placements", ())  # of FSDP's tensors
    parts: list[int] = [
        weight.device_mesh.size(axis)  # type: ignore[attr-defined]  # they have one
        for axis, placement in enumerate(placements)
        if not placement.is_replicate()
    ]
    return count_processes() / math.prod(parts)
