"""The learning rates of an optimizer, set by one hand; another's is found out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

ROUNDING = 1e-12  # who repeats a rate as base * factor changes its last bits


class ParamGroupLRs:
    """The rates of all parameter groups, which keep the ratios they had at first.

    Attributes:
        initial: The rates per group when the optimizer was taken over.
    """

    def __init__(self, optimizer: Optimizer, *, read_only: bool = False) -> None:
        """Take the optimizer's rates as they are; `read_only` never touches them."""
        self.optimizer = optimizer
        self.read_only = read_only
        self.initial = self.read()
        self._written = self.initial

    def read(self) -> list[float]:
        """Return the rate of every group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def write(self, rate: float) -> None:
        """Set the first group's rate to `rate`, the others' by their ratios to it."""
        if self.read_only:
            return
        groups = self.optimizer.param_groups
        for group, initial in zip(groups, self.initial, strict=True):
            value = initial / self.initial[0] * rate
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value
        self._written = self.read()  # a tensor has rounded it

    def verify(self, iteration: int) -> None:
        """Raise RuntimeError unless the rates are those written last."""
        if self.read_only:
            return
        found = self.read()
        if len(found) != len(self._written):
            raise RuntimeError(
                f"the optimizer had {len(self._written)} parameter groups and now has "
                f"{len(found)}: make the controller after adding groups"
            )
        for i, (rate, written) in enumerate(zip(found, self._written, strict=True)):
            if not math.isclose(rate, written, rel_tol=ROUNDING):
                raise RuntimeError(
                    f"something else changed the learning rate of parameter group {i} "
                    f"from {written:g} to {rate:g} at iteration {iteration}: "
                    "remove the other scheduler, or stop the controller by detach()"
                )

    def load(self, initial: Sequence[float]) -> None:
        """Take saved initial rates; ValueError where the number of groups differs."""
        groups = len(self.optimizer.param_groups)
        if len(initial) != groups:
            raise ValueError(
                f"the state is of {len(initial)} parameter groups, the optimizer "
                f"has {groups}"
            )
        self.initial = list(initial)
