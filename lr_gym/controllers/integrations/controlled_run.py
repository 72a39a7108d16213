"""Starts a controller in a trainer's run, also in one that is resumed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lr_gym.controllers.controller import ControllerLR
from lr_gym.validation import (
    check_boolean,
    check_complete,
    check_integer,
    check_mapping,
)

# Keywords of `ControllerLR` that the callbacks pass on.
SETTINGS = ("min_lr", "max_lr", "snapshot_device", "dry_run")


def check_metric(name: str, metric: object, undo: object) -> None:
    """Check the name of the metric that a callback passes to the controller.

    Args:
        name: What the callback calls `metric`.
        metric: The name, or `None`.
        undo: Whether damage is undone.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `undo` is set without a metric.
    """
    if metric is not None and not isinstance(metric, str):
        raise TypeError(f"{name} must be a metric's name or None, got {metric!r}")
    check_boolean("undo", undo)
    if undo and metric is None:
        raise ValueError(
            "undo=True needs a metric that shows damage: pass the name of one as "
            f"{name}, or undo=False"
        )


class ControlledRun:
    """A controller, its start in a trainer's run, and its state in checkpoints.

    Attributes:
        controller: Created at the start, or restored.
        first_update: Updates of the run that were made without the controller.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_steps: int,
        done: int,
        saved: Mapping[str, Any] | None,
        **settings: Any,
    ) -> None:
        """Take over the optimizer's learning rates.

        A scheduler may have changed them; the controller starts from the initial ones.

        Args:
            optimizer: The torch optimizer.
            max_steps: Updates of the whole run.
            done: Updates that are already made.
            saved: From `state_dict`; `None` if there is none.
            **settings: Further keywords of `ControllerLR`.

        Raises:
            TypeError: A saved entry has the wrong type.
            ValueError: A saved entry is out of range, or the run was extended after its
                cooldown had begun.
        """
        self.first_update = done
        if saved is not None:
            check_mapping("the saved state", saved)
            check_complete("the saved state", saved, ("first_update", "controller"))
            check_integer("first_update", saved["first_update"], 0)
            self.first_update = saved["first_update"]
        elif done > 0:
            warnings.warn(
                f"training continues after update {done} without the state of a "
                f"controller: the controller takes the {max_steps - done} updates that "
                "are left as its whole run, and starts with a low learning rate",
                stacklevel=2,
            )
        groups = optimizer.param_groups
        current = [float(group["lr"]) for group in groups]
        _set_rates(groups, [float(g.get("initial_lr", g["lr"])) for g in groups])
        total_steps = max(1, max_steps - self.first_update)
        self.controller = ControllerLR(optimizer, total_steps, **settings)
        if saved is not None:
            self.controller.load_state_dict(saved["controller"])
        if self.controller.dry_run:
            _set_rates(groups, current)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "first_update": self.first_update,
            "controller": self.controller.state_dict(),
        }


def _set_rates(groups: list[dict[str, Any]], rates: list[float]) -> None:
    """Set the learning rate of every parameter group."""
    for group, rate in zip(groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
