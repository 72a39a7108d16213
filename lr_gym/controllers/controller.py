"""`ControllerLR`: a learning-rate scheduler that needs no learning rate, or evaluation.

    controller = ControllerLR(optimizer, total_steps=600)
    for batch in batches:
        ...  # forward, backward, optimizer.step()

It measures the optimizer's updates by hooks on `optimizer.step()`; see `climb.py`.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray
from torch.optim import Optimizer

from lr_gym.controllers.climb import Climb
from lr_gym.controllers.damage import Damage
from lr_gym.controllers.history import ControlledLR, Record
from lr_gym.controllers.param_group_lrs import ParamGroupLRs
from lr_gym.controllers.processes import count_processes, sum_over_processes
from lr_gym.controllers.saved_state import check_snapshot
from lr_gym.controllers.snapshots import Stateful, make_snapshot
from lr_gym.controllers.update_meter import UpdateMeter
from lr_gym.validation import (
    MAX_REAL,
    check_boolean,
    check_choice,
    check_complete,
    check_integer,
    check_mapping,
    check_real,
    read_number,
)

FORMAT = "lr-gym controller 2"
MODES = ("min", "max")
STEP_BACK = 0.5  # factor on the rates at the second damage, and each one after it
_log = logging.getLogger("lr_gym.controllers")


class ControllerLR(ControlledLR):
    """Sets an optimizer's learning rates from the updates that it makes.

    Any optimizer, model and loss. `step(metric)` is optional: with evaluations, and
    `undo`, the controller also takes back damage. All parameter groups keep the ratios
    of their learning rates. In several processes all take the same decisions.

    Attributes:
        optimizer: The optimizer.
        total_steps: Updates of the whole run.
        last_epoch: Updates made, the name that torch's schedulers use.
        best: The best metric so far; `None` before any.
        history: One `Record` per call of `step` with a metric.
        snapshot: The copy that an undo restores, with its time and memory, or `None`.
    """

    # Accelerate's `prepare` then returns the controller as it is. Its wrapper would
    # call `step` once per process, and not during gradient accumulation.
    _is_accelerate_prepared = True

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        mode: str = "min",
        undo: Stateful | Sequence[Stateful] = (),
        snapshot_device: str = "same",
        min_lr: float = 0.0,
        max_lr: float = math.inf,
        dry_run: bool = False,
    ) -> None:
        """Take over the optimizer's learning rates.

        Args:
            optimizer: Its learning rates are a guess that may be 30 times too high or
                too low. Only their ratios between groups matter much.
            total_steps: Updates of the whole run, calls of `optimizer.step()`.
            mode: ``min`` if a lower metric is better, ``max`` if a higher one is.
            undo: What an undo restores besides the optimizer: the model, or several
                objects with `state_dict` and `load_state_dict`. They are copied at
                every evaluation.
            snapshot_device: Where the copies are: ``same`` as the tensors, or ``host``.
            min_lr: Lowest learning rate of any group before the cooldown.
            max_lr: Highest learning rate of any group.
            dry_run: Measure and log, but set nothing.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range.
        """
        check_integer("total_steps", total_steps, 1)
        check_choice("mode", mode, MODES)
        check_real("min_lr", min_lr, 0.0)
        if max_lr != math.inf:
            check_real("max_lr", max_lr, min_lr, low_open=min_lr == 0.0)
        check_boolean("dry_run", dry_run)
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
        self._group_lrs = ParamGroupLRs(optimizer, read_only=dry_run)
        for rate in self._group_lrs.initial:
            check_real("a learning rate of the optimizer", rate, 0.0)
        if not any(self._group_lrs.initial):
            raise ValueError(
                "every learning rate of the optimizer is 0: pass a positive guess"
            )
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.mode = mode
        self.min_lr, self.max_lr = float(min_lr), float(max_lr)
        self.dry_run = dry_run
        self.snapshot = make_snapshot(undo, optimizer, snapshot_device, required=False)
        self.best: float | None = None
        self.history: list[Record] = []
        self._climb = Climb(total_steps)
        self._damage = Damage()
        self._meter = UpdateMeter(optimizer)
        self._factors: list[float] = []  # of all updates made
        self._measuring = False
        self._attach()
        self._set_rates()

    @property
    def last_epoch(self) -> int:  # type: ignore[override]  # torch's has no setter here
        """Updates made."""
        return self._climb.step

    def step(  # type: ignore[override]  # like ReduceLROnPlateau.step
        self, metrics: SupportsFloat | None = None, epoch: int | None = None
    ) -> Record | None:
        """Look at an evaluation for damage; without `metrics`, do nothing.

        The learning rates follow `optimizer.step()` alone, so calls without a metric,
        as for other schedulers, are allowed and not needed. A metric that is not finite
        is no error, but damage. In several processes, all must call with their metrics;
        the mean counts.

        Args:
            metrics: Any number in any unit; see `mode`.
            epoch: Ignored.

        Returns:
            What was done. If `undone` is set, weights and optimizer are those of the
            last good evaluation.

        Raises:
            TypeError: `metrics` is not a number.
            RuntimeError: Something else has changed the optimizer's learning rate.
        """
        if metrics is None:
            return None
        self._group_lrs.verify(self.last_epoch)
        number = read_number("metrics", metrics)
        value = sum_over_processes([number], self.optimizer)[0] / count_processes()
        better = -value if self.mode == "max" else value
        # The safe start damages nothing, and its small changes say nothing of noise.
        judged = not self._climb.starting or not math.isfinite(value)
        damaged = judged and self._damage.judge(better)
        if not math.isnan(value):
            pick = max if self.mode == "max" else min
            self.best = value if self.best is None else pick(self.best, value)
        undone = damaged and bool(self.snapshot) and not self.dry_run
        factor = 1.0
        if damaged:
            if undone and self.snapshot is not None:
                self.snapshot.restore()
            self._meter.forget()
            if self._damage.count > 1:  # the first may be an evaluation gone wrong
                factor = STEP_BACK
                self._climb.step_back(factor)
        elif self.snapshot is not None and not self.dry_run:
            self.snapshot.take()
        self._set_rates()
        record = Record(
            iteration=self.last_epoch,
            val_loss=value,
            learning_rate=self._largest() * self._bounded_factor(),
            factor=factor,
            undo=damaged,
            undone=undone,
            diverged=not math.isfinite(value),
        )
        self.history.append(record)
        _log.info("%s%s", "dry run: " if self.dry_run else "", record)
        return record

    def used_learning_rates(self) -> NDArray[np.float64]:
        """Return the largest group's learning rate at every update, (updates,).

        In a dry run, the learning rates that the controller would have set.
        """
        return np.array(self._factors) * self._largest()

    def _used_factors(self) -> list[float]:
        """Return the factor on the initial learning rates at every update made."""
        return list(self._factors)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, and tensors: of the snapshot, and samples in the climb.

        A run that continues repeats the learning rates exactly. With FSDP no samples
        are saved: a run that continues in the climb repeats them roughly.
        """
        return {
            "format": FORMAT,
            "initial_lrs": list(self._group_lrs.initial),
            "climb": self._climb.state_dict(),
            "meter": self._meter.state_dict(),
            "damage": self._damage.state_dict(),
            "best": self.best,
            "factors": list(self._factors),
            "snapshot": None if self.snapshot is None else self.snapshot.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from `state_dict` and set the optimizer's learning rates.

        Load the model and the optimizer separately. The run may be longer or shorter
        than the saved one, if that was not yet in its cooldown.

        Raises:
            TypeError: An entry is missing, unknown or of the wrong type.
            ValueError: The state has another format or number of parameter groups, or
                an entry is out of range.
        """
        self._check_state(state_dict)
        self._group_lrs.initial = [float(rate) for rate in state_dict["initial_lrs"]]
        self._climb.load_state_dict(state_dict["climb"])
        self._meter.load_state_dict(state_dict["meter"])
        self._damage.load_state_dict(state_dict["damage"])
        self._factors = [float(factor) for factor in state_dict["factors"]]
        best = state_dict["best"]
        self.best = None if best is None else read_number("best", best)
        if self.snapshot is not None:
            self.snapshot.load_state_dict(state_dict["snapshot"])
        self._set_rates()

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """Raise for a state that `load_state_dict` refuses; change nothing."""
        check_mapping("state_dict", state)
        if state.get("format") != FORMAT:
            raise ValueError(
                f"not a controller's state: format must be {FORMAT!r}. To control the "
                "rest of a run that had no controller, pass the updates that are left "
                "as total_steps, and load no state"
            )
        check_complete("state_dict", state, tuple(self.state_dict()))
        self._group_lrs.check_initial(state["initial_lrs"], first_positive=False)
        if not any(state["initial_lrs"]):
            raise ValueError("initial_lrs must hold a number above 0")
        self._climb.check_state(state["climb"])
        self._meter.check_state(state["meter"])
        self._damage.check_state(state["damage"])
        if not isinstance(state["factors"], list | tuple):
            raise TypeError(f"factors must be a list, got {state['factors']!r}")
        for factor in state["factors"]:
            check_real("factors", factor, 0.0)
        updates = state["climb"]["step"]
        if len(state["factors"]) != updates:
            raise ValueError(
                f"factors must hold one number for each of the {updates} updates, got "
                f"{len(state['factors'])}"
            )
        best = state["best"]
        if best is not None and math.isnan(read_number("best", best)):
            raise ValueError("best must be a number or None, got nan")
        if self.snapshot is not None and state["snapshot"] is not None:
            check_snapshot(state["snapshot"], self.snapshot.objects)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds; hooks belong to one optimizer."""
        return {k: v for k, v in vars(self).items() if k != "_hooks"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Control the copied optimizer, as the original controls its own."""
        vars(self).update(state)
        self._attach()

    # ------------------------------------------------------------------------ updates

    def _attach(self) -> None:
        self._hooks = (
            self.optimizer.register_step_pre_hook(self._before_update),
            self.optimizer.register_step_post_hook(self._after_update),
        )

    def _before_update(self, *_: object) -> None:
        """Hook: check that nothing else sets the learning rates; sample."""
        self._group_lrs.verify(self.last_epoch)
        if not self.dry_run:
            self._set_rates()  # undoes changes too small for `verify`
        self._measuring = self._climb.measures
        if self._measuring:
            self._meter.before()

    def _after_update(self, *_: object) -> None:
        """Hook: measure the update, and set the learning rates of the next one."""
        self._group_lrs.verify(self.last_epoch)
        factor = self._bounded_factor()
        if self._measuring:
            measure = self._meter.after()
            if measure.skipped:
                return  # a GradScaler made no update
            self._climb.observe(measure.size, measure.later, measure.own)
            if not self._climb.measures:
                self._meter.forget()
        else:
            if self.last_epoch == self.total_steps:
                warnings.warn(
                    f"all {self.total_steps} updates are made: training goes on at the "
                    "last learning rate; pass a larger total_steps to ControllerLR",
                    stacklevel=3,
                )
            self._climb.skip_measure()
        self._factors.append(factor)
        self._set_rates()

    def _set_rates(self) -> None:
        """Set the learning rates of the next update."""
        self._group_lrs.scale(self._bounded_factor())

    def _bounded_factor(self) -> float:
        """Return the factor on the user's rates, within the bounds."""
        largest = self._largest()
        low, high = self.min_lr / largest, self.max_lr / largest
        bounded = min(max(self._climb.factor, low), high)
        return min(bounded * self._climb.cooldown(), MAX_REAL)

    def _largest(self) -> float:
        return max(self._group_lrs.initial)
