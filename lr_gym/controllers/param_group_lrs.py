"""Sets the learning rates of an optimizer; raises if anything else changes them."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import Optimizer

from lr_gym.validation import MAX_REAL, check_real

ROUNDING = 1e-12  # a scheduler that repeats base * factor changes the last bits


class ParamGroupLRs:
    """The learning rates of all parameter groups, which keep their initial ratios.

    Attributes:
        initial: The learning rates per group when the controller took over.
    """

    def __init__(self, optimizer: Optimizer, *, read_only: bool = False) -> None:
        """Read the current learning rates; with `read_only`, never set them.

        Raises:
            TypeError: `optimizer` is not a torch optimizer.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer, got "
                f"{type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.read_only = read_only
        self.initial = self.read()
        self._written = self.initial

    def check_bounds(self, low: float, high: float) -> None:
        """Raise ValueError unless the first learning rate is in [`low`, `high`]."""
        value = self.initial[0]
        check_real("the first group's learning rate", value, 0.0, low_open=True)
        for other in self.initial[1:]:
            check_real("a group's learning rate", other, 0.0)
        if not low <= value <= high:
            raise ValueError(
                "the first group's learning rate must be in [min_lr, max_lr] = "
                f"[{low:g}, {high:g}], got {value!r}; pass a lower min_lr or a higher "
                "max_lr"
            )

    def read(self) -> list[float]:
        """Return the learning rate of every group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def write(self, learning_rate: float) -> None:
        """Set the first group's learning rate, and the others' by the ratios."""
        if self.read_only:
            return
        groups = self.optimizer.param_groups
        for group, initial in zip(groups, self.initial, strict=True):
            value = min(initial / self.initial[0] * learning_rate, MAX_REAL)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value
        self._written = self.read()  # a tensor rounds the value

    def scale(self, factor: float) -> None:
        """Set the learning rate of every group to `factor` times its initial one."""
        if self.read_only:
            return
        for group, initial in zip(
            self.optimizer.param_groups, self.initial, strict=True
        ):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(initial * factor)
            else:
                group["lr"] = initial * factor
        self._written = self.read()

    def verify(self, iteration: int) -> None:
        """Raise RuntimeError unless the learning rates are those written last."""
        if self.read_only:
            return
        current = self.read()
        if len(current) != len(self._written):
            raise RuntimeError(
                f"the optimizer had {len(self._written)} parameter groups and now has "
                f"{len(current)}: create the controller after adding groups"
            )
        for i, (now, written) in enumerate(zip(current, self._written, strict=True)):
            if not math.isclose(now, written, rel_tol=ROUNDING):
                raise RuntimeError(
                    f"something else changed the learning rate of parameter group {i} "
                    f"from {written:g} to {now:g} at iteration {iteration}: "
                    "remove the other scheduler, or stop the controller with detach()"
                )

    def check_initial(
        self, initial: object, *, first_positive: bool = True
    ) -> list[float]:
        """Return saved initial learning rates.

        With `first_positive`, the first must be above 0: the others are relative to it.

        Raises:
            TypeError: They are not a list of numbers.
            ValueError: The number of groups differs, or a number is out of range.
        """
        groups = len(self.optimizer.param_groups)
        if not isinstance(initial, list | tuple):
            raise TypeError(f"initial_lrs must be a list, got {initial!r}")
        if len(initial) != groups:
            raise ValueError(
                f"the state has {len(initial)} parameter groups, the optimizer has "
                f"{groups}"
            )
        for i, rate in enumerate(initial):
            positive = first_positive and i == 0 and not self.read_only
            check_real("initial_lrs", rate, 0.0, low_open=positive)
        return [float(rate) for rate in initial]
