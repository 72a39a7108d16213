"""`PolicyLR`: a learning-rate scheduler that asks a policy at every evaluation.

    scheduler = PolicyLR(optimizer, "q.json", interval=10, max_iters=600)
    for batch in batches:
        if scheduler.needs_evaluation:
            scheduler.step(evaluate(model))
        ...  # forward, backward, optimizer.step()

Hooks on `optimizer.step()` count the iterations and check that nothing else has changed
the learning rates. `ControllerLR` needs no policy, and no evaluation.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.optim import Optimizer

from lr_gym import mdp
from lr_gym.controllers.history import ControlledLR, Record, decided_learning_rates
from lr_gym.controllers.param_group_lrs import ParamGroupLRs
from lr_gym.controllers.policies.policy import Decision, Policy
from lr_gym.controllers.policies.policy_file import copy_policy
from lr_gym.controllers.run_tracker import RunTracker
from lr_gym.controllers.saved_state import FORMAT, check_state
from lr_gym.controllers.snapshots import Stateful, make_snapshot
from lr_gym.controllers.update_size import UpdateSizeMeter
from lr_gym.schedules import schedule_factor
from lr_gym.validation import check_boolean, check_integer, read_number

_log = logging.getLogger("lr_gym.controllers")


class PolicyLR(ControlledLR):
    """Sets an optimizer's learning rate from validation losses, as a policy decides.

    Use it like `torch.optim.lr_scheduler.ReduceLROnPlateau`: call `step(val_loss)` at
    each evaluation. All parameter groups keep the ratios of their learning rates. The
    learning rate in arguments, records and observations is the first group's.

    Attributes:
        policy: The policy that decides; a copy of the one passed.
        history: One `Record` per decision.
        iteration: Iterations so far: calls of `optimizer.step()`.
        snapshot: The copy that an undo restores, with its time and memory, or `None`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        policy: str | os.PathLike[str] | Policy = "update_size",
        *,
        interval: int,
        max_iters: int,
        min_lr: float | None = None,
        max_lr: float | None = None,
        warmup_iters: int = 0,
        undo: Stateful | Sequence[Stateful] = (),
        snapshot_device: str = "same",
        loss_floor: float | None = None,
        dry_run: bool = False,
    ) -> None:
        """Take over the optimizer's learning rates.

        Args:
            optimizer: The policy starts from its current learning rates.
            policy: A name or path for `lr_gym.load_controller`, or a policy.
            interval: Iterations between evaluations.
            max_iters: Iterations in the whole run.
            min_lr: Lower bound of the learning rate; `None` takes the policy's.
            max_lr: Upper bound of the learning rate; `None` takes the policy's.
            warmup_iters: Iterations of linear warm-up on top of the policy's decisions.
            undo: What an undo restores besides the optimizer: the model, or several
                objects with `state_dict` and `load_state_dict`; copied at decisions.
            snapshot_device: Where the copies are: ``same`` as the tensors, or ``host``.
            loss_floor: What ``log_excess_loss`` subtracts, nats; `None` takes the
                policy's.
            dry_run: Decide and log, but change nothing. The policy then sees the
                learning rate that the training loop sets.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range, the optimizer's learning rate is
                outside the bounds, or the policy undoes and `undo` is empty.
        """
        check_integer("interval", interval, 1)
        check_integer("max_iters", max_iters, 1)
        check_integer("warmup_iters", warmup_iters, 0, max_iters)
        check_boolean("dry_run", dry_run)
        self._group_lrs = ParamGroupLRs(optimizer, read_only=dry_run)
        self.optimizer = optimizer
        self.policy = copy_policy(policy)
        settings = {"min_lr": min_lr, "max_lr": max_lr, "loss_floor": loss_floor}
        changes: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
        self.config = dataclasses.replace(self.policy.config, **changes)
        self.max_iters = max_iters
        self.warmup_iters = warmup_iters
        self.dry_run = dry_run
        self._learning_rate = self._group_lrs.initial[0]
        if not dry_run:
            self._group_lrs.check_bounds(self.config.min_lr, self.config.max_lr)
        needed = self.config.allow_undo and not dry_run
        self.snapshot = make_snapshot(undo, optimizer, snapshot_device, required=needed)
        self._decision_points = mdp.decision_points(self.config, max_iters, interval)
        self.policy.reset(len(self._decision_points))
        self.iteration = 0
        self.history: list[Record] = []
        self._tracker = RunTracker(self.config, max_iters)
        self._update_size_meter = UpdateSizeMeter(optimizer)
        self._set_learning_rates()
        self._hooks = (
            optimizer.register_step_pre_hook(self._before_update),
            optimizer.register_step_post_hook(self._after_update),
        )

    @property
    def needs_evaluation(self) -> bool:
        """Whether to evaluate and call `step` now.

        True before training and then at the policy's decision points; False once
        `max_iters` iterations are made.
        """
        if not self.history:
            return True
        if self.iteration >= self.max_iters:
            return False
        last = self._last_evaluation() or 0
        later = self._decision_points[self._decision_points > last]
        return self.iteration >= int(later[0])

    def step(  # type: ignore[override]  # needs a loss, like ReduceLROnPlateau.step
        self,
        val_loss: SupportsFloat,
        *,
        train_loss: SupportsFloat | None = None,
        grad_norm: SupportsFloat | None = None,
        update_size: SupportsFloat | None = None,
    ) -> Record:
        """Decide on a validation loss: set the learning rate, undo if decided.

        A call only records the loss if no update was made since the last call, or if
        `max_iters` iterations are made. A loss that is not finite is no error: the
        controller undoes the last chunk if it can, and lowers the learning rate.

        Args:
            val_loss: Mean validation loss per prediction, nats.
            train_loss: Mean over the iterations since the last decision, nats; for
                policies that observe it.
            grad_norm: Mean over the same iterations, before clipping; likewise.
            update_size: Size of the last update, see `lr_gym.trainers.update_size`;
                `None` takes the controller's own measurement.

        Returns:
            The decision and its effects. If `undone` is set, the weights are no longer
            those that were evaluated.

        Raises:
            TypeError: A metric is not a number.
            ValueError: A metric that the policy observes is missing, a number is
                negative, or the first loss is above 1000.
            RuntimeError: Something else has changed the optimizer's learning rate.
        """
        self._group_lrs.verify(self.iteration)
        if self.dry_run:
            self._learning_rate = self._group_lrs.read()[0]
        if update_size is None:
            update_size = self._update_size_meter.value
        others = {
            "train_loss": train_loss,
            "grad_norm": grad_norm,
            "update_size": update_size,
        }
        metrics = {"val_loss": read_number("val_loss", val_loss)} | {
            name: read_number(name, value)
            for name, value in others.items()
            if value is not None
        }
        if self._last_evaluation() == self.iteration:
            return self._apply(Decision(1.0), metrics["val_loss"])
        diverged = self._tracker.update(metrics, self.iteration, self._learning_rate)
        if diverged:
            decision = self.policy.diverged()
        elif self.iteration >= self.max_iters:
            decision = Decision(1.0)
        else:
            decision = self.policy.act(self._tracker.observe())
        return self._apply(decision, metrics["val_loss"], diverged)

    def used_learning_rates(self) -> NDArray[np.float64]:
        """Return the first group's learning rate at every update, (iterations,).

        In a dry run, the learning rates that the controller would have set.
        """
        decided = decided_learning_rates(self.history, self.iteration)
        return decided * self._schedule(np.arange(self.iteration))

    def _used_factors(self) -> list[float]:
        """Return the factor on the initial learning rates at every update made."""
        factors = self.used_learning_rates() / self._group_lrs.initial[0]
        return [float(factor) for factor in factors]

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, for `save_state`; snapshot included."""
        return {
            "format": FORMAT,
            "iteration": self.iteration,
            "initial_lrs": list(self._group_lrs.initial),
            "learning_rate": self._learning_rate,
            "policy": self.policy.state_dict(),
            "run": self._tracker.state_dict(),
            "update_size": self._update_size_meter.value,
            "history": [dataclasses.asdict(record) for record in self.history],
            "snapshot": None if self.snapshot is None else self.snapshot.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from `state_dict` and set the optimizer's learning rates.

        A learning rate outside this controller's bounds is clipped to them.

        Load the model and the optimizer separately, before training goes on.

        Raises:
            TypeError: An entry is missing, unknown or of the wrong type. Nothing was
                loaded.
            ValueError: The state has another format or number of parameter groups, or
                an entry is out of range. Nothing was loaded.
        """
        check_state(state_dict, () if self.snapshot is None else self.snapshot.objects)
        initial_lrs = self._group_lrs.check_initial(state_dict["initial_lrs"])
        run = self._tracker.check_state_dict(state_dict["run"])
        self.policy.load_state_dict(state_dict["policy"])
        self._group_lrs.initial = initial_lrs
        self._tracker.load_state_dict(run)
        self.iteration = state_dict["iteration"]
        self._learning_rate = float(state_dict["learning_rate"])
        if not self.dry_run:
            self._learning_rate = self._clipped(self._learning_rate)
        self._update_size_meter.value = state_dict["update_size"]
        self.history = [Record(**record) for record in state_dict["history"]]
        if self.snapshot is not None:
            self.snapshot.load_state_dict(state_dict["snapshot"])
        self._set_learning_rates()

    def _last_evaluation(self) -> int | None:
        """Return the iteration of the last decision that used a loss."""
        losses = (r.iteration for r in reversed(self.history) if r.val_loss is not None)
        return next(losses, None)

    def _apply(
        self, decision: Decision, val_loss: float | None, diverged: bool = False
    ) -> Record:
        """Carry out a decision and append its record to the history."""
        undone = decision.undo and bool(self.snapshot) and not self.dry_run
        if self.snapshot is not None and not self.dry_run:
            if undone:
                self.snapshot.restore()
            elif self.iteration < self.max_iters:
                self.snapshot.take()
        self._learning_rate = self._clipped(self._learning_rate * decision.factor)
        self._set_learning_rates()
        record = Record(
            iteration=self.iteration,
            val_loss=val_loss,
            learning_rate=self._learning_rate,
            factor=decision.factor,
            undo=decision.undo,
            undone=undone,
            diverged=diverged,
        )
        self.history.append(record)
        _log.info("%s%s", "dry run: " if self.dry_run else "", record)
        return record

    def _clipped(self, learning_rate: float) -> float:
        """Return a learning rate within the bounds."""
        return float(np.clip(learning_rate, self.config.min_lr, self.config.max_lr))

    def _before_update(self, *_: object) -> None:
        """Hook: check the learning rates; make the first decision if none was made."""
        self._group_lrs.verify(self.iteration)
        observed = "update_size" in self.config.features
        if observed and self.iteration + 1 in self._decision_points:
            self._update_size_meter.before_update()
        if self.history:
            self._set_learning_rates()  # undoes changes too small for `verify`
            return
        decision = self.policy.start()
        if decision is None:
            warnings.warn(
                "training starts before the first evaluation: the policy keeps the "
                "learning rate until then; call step(val_loss) before the first update",
                stacklevel=3,
            )
            decision = Decision(1.0)
        self._apply(decision, None)

    def _after_update(self, *_: object) -> None:
        """Hook: count the update and set the learning rates of the next one."""
        self._group_lrs.verify(self.iteration)
        self._update_size_meter.after_update()
        self.iteration += 1
        self._set_learning_rates()

    def _schedule(self, iteration: ArrayLike) -> NDArray[np.float64]:
        """Return the factor of warm-up and base schedule at `iteration`."""
        return schedule_factor(
            self.config.base_schedule, iteration, self.max_iters, self.warmup_iters
        )

    def _set_learning_rates(self) -> None:
        """Set the learning rates of the next update."""
        factor = float(self._schedule(self.iteration))
        self._group_lrs.write(self._learning_rate * factor)
