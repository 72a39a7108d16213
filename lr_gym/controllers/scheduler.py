"""`ControllerLR`: a policy as the learning-rate scheduler of somebody's own loop.

Three lines in a loop:

    controller = ControllerLR(optimizer, interval=10, max_iters=600, undo=model)
    for batch in batches:
        if controller.due:
            controller.step(evaluate(model))
        ...  # forward, backward, optimizer.step()

It counts updates and checks the learning rate by hooks on `optimizer.step()`, so that
nobody else's writing can go unnoticed.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lr_gym import mdp
from lr_gym.controllers.history import Record, rates_per_update, write_schedule
from lr_gym.controllers.param_group_lrs import ParamGroupLRs
from lr_gym.controllers.policies.policy import Decision, Policy
from lr_gym.controllers.policies.policy_file import load_controller
from lr_gym.controllers.run_tracker import RunTracker
from lr_gym.controllers.snapshots import Snapshot, Stateful
from lr_gym.controllers.update_size import UpdateSizeMeter
from lr_gym.schedules import schedule_factor
from lr_gym.validation import check_boolean, check_integer, check_real

FORMAT = "lr-gym controller 1"
_log = logging.getLogger("lr_gym.controllers")


class ControllerLR(LRScheduler):
    """Sets the learning rate of an optimizer as a policy decides on validation losses.

    Used as `torch.optim.lr_scheduler.ReduceLROnPlateau` is: `step(val_loss)` at each
    evaluation. All parameter groups keep their ratios; the learning rates named here,
    and those the policy sees, are the first group's.

    Attributes:
        policy: Decides; a copy of its own.
        history: A `Record` per decision.
        iteration: Updates of the optimizer so far.
        snapshot: What an undo puts back, with the time and memory it takes; `None`
            without `undo`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        policy: str | os.PathLike[str] | Policy = "default",
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
        """Take the optimizer over.

        Args:
            optimizer: Its learning rates as they are now are where the policy starts.
            policy: A name or path for `lr_gym.load_controller`, or a policy.
            interval: Updates between evaluations, which `needs_evaluation` asks for.
            max_iters: Updates in the whole run.
            min_lr: Lower bound of the learning rate; `None` is the policy's own.
            max_lr: Upper bound; `None` is the policy's own.
            warmup_iters: Updates of linear warm-up, on top of what the policy does.
            undo: What is put back, beside the optimizer, when a chunk of training is
                taken back: the model, or several objects with `state_dict` and
                `load_state_dict`. Their state is copied at every decision.
            snapshot_device: Where the copies are: ``same`` as the tensors, or ``host``.
            loss_floor: Of ``log_excess_loss``, nats; `None` is the policy's own.
            dry_run: Decide and log, but change nothing; the learning rate that the
                policy sees is the loop's own.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range, the optimizer's learning rate is
                outside the bounds, or the policy undoes and `undo` is empty.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        check_integer("interval", interval, 1)
        check_integer("max_iters", max_iters, 1)
        check_integer("warmup_iters", warmup_iters, 0, max_iters)
        check_boolean("dry_run", dry_run)
        self.optimizer = optimizer
        self.policy = _own(policy)
        own = self.policy.config
        self.config = dataclasses.replace(
            own,
            min_lr=own.min_lr if min_lr is None else min_lr,
            max_lr=own.max_lr if max_lr is None else max_lr,
            loss_floor=own.loss_floor if loss_floor is None else loss_floor,
        )
        self.max_iters = max_iters
        self.warmup_iters = warmup_iters
        self.dry_run = dry_run
        self._rates = ParamGroupLRs(optimizer, read_only=dry_run)
        self._learning_rate = self._rates.initial[0]
        if not dry_run:
            self._check_learning_rate()
        self.snapshot = self._prepare_snapshot(undo, snapshot_device)
        self._points = mdp.decision_points(self.config, max_iters, interval)
        self.policy.reset(len(self._points))
        self.iteration = 0
        self.history: list[Record] = []
        self._run = RunTracker(self.config, max_iters)
        self._update_size = UpdateSizeMeter(optimizer)
        self._write()
        self._hooks = (
            optimizer.register_step_pre_hook(self._before_update),
            optimizer.register_step_post_hook(self._after_update),
        )

    # ------------------------------------------------------------- the user's side

    @property
    def needs_evaluation(self) -> bool:
        """Whether to evaluate and call `step` now: before training, then at intervals.

        After the last update it is not: nothing is left to decide.
        """
        if self.iteration >= self.max_iters:
            return False
        judged = self._last_judged()
        if judged is None:
            return not self.history or self.iteration >= int(self._points[0])
        later = self._points[self._points > judged.iteration]
        return self.iteration >= int(later[0])

    def step(  # type: ignore[override]  # as ReduceLROnPlateau's, it needs a loss
        self,
        val_loss: SupportsFloat,
        *,
        train_loss: SupportsFloat | None = None,
        grad_norm: SupportsFloat | None = None,
        update_size: SupportsFloat | None = None,
    ) -> Record:
        """Decide on a validation loss; set the learning rate, take back if need be.

        Every call is a decision, unless no update was made since the last one or
        `max_iters` updates are spent: then the loss is noted and nothing changes. A
        loss that is not finite is an outcome like others: the chunk is taken back where
        it can be, and the learning rate lowered.

        Args:
            val_loss: Mean per prediction, nats.
            train_loss: Mean over the updates since the last decision, likewise.
            grad_norm: Mean of the gradient norms before clipping, likewise.
            update_size: Of the last update, see `lr_gym.trainers.update_size`; `None`
                takes what was measured before each decision.

        Returns:
            What was decided and done. Where it says `undone`, the weights are no longer
            those that were evaluated.

        Raises:
            ValueError: The policy observes something that was not given; or a number is
                negative; or the first loss is above 1000.
            RuntimeError: Something else has changed the optimizer's learning rate.
        """
        self._rates.verify(self.iteration)
        if self.dry_run:
            self._learning_rate = self._rates.read()[0]
        if update_size is None:
            update_size = self._update_size.value
        measured = {
            "val_loss": val_loss,
            "train_loss": train_loss,
            "grad_norm": grad_norm,
            "update_size": update_size,
        }
        judged = self._last_judged()
        if judged is not None and judged.iteration == self.iteration:
            return self._carry_out(Decision(1.0), float(val_loss))
        diverged = self._run.note(
            {name: float(v) for name, v in measured.items() if v is not None},
            self.iteration,
            self._learning_rate,
        )
        if diverged:
            decision = self.policy.diverged()
        elif self.iteration >= self.max_iters:
            decision = Decision(1.0)
        else:
            decision = self.policy.act(self._run.observe())
        return self._carry_out(decision, float(val_loss), diverged)

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the learning rates that the next update uses, one per group."""
        return [*self._rates.read()]

    def used_learning_rates(self) -> NDArray[np.float64]:
        """Return the first group's learning rate at every update, (iterations,).

        In a dry run, what it would have been.
        """
        steps = np.arange(self.iteration)
        return rates_per_update(self.history, self.iteration) * self._schedule(steps)

    def export_schedule(self, path: str | os.PathLike[str]) -> None:
        """Write what was done as CSV, a line per update; see `write_schedule`."""
        write_schedule(path, self.history, self.used_learning_rates())

    def as_lambda_lr(self, optimizer: Optimizer) -> LambdaLR:
        """Return a scheduler that replays the learning rates, without looking.

        Args:
            optimizer: A fresh one; its learning rates are scaled as this one's were.
                Updates beyond those replayed keep the last rate.

        Raises:
            RuntimeError: There is nothing to replay.
        """
        if self.dry_run:
            raise RuntimeError("nothing to replay: a dry run sets no learning rates")
        ratios = (self.used_learning_rates() / self._rates.initial[0]).tolist()
        if not ratios:
            raise RuntimeError("nothing to replay: no update was made")
        last = len(ratios) - 1
        return LambdaLR(optimizer, lambda iteration: ratios[min(iteration, last)])

    def detach(self) -> None:
        """Let the optimizer go; its learning rates stay as they are."""
        for hook in self._hooks:
            hook.remove()

    # ------------------------------------------------------------------ saved states

    def state_dict(self) -> dict[str, Any]:
        """Return everything it depends on, the snapshot included.

        Plain values and tensors, for `torch.save` or `lr_gym.controllers.save_state`.
        """
        return {
            "format": FORMAT,
            "iteration": self.iteration,
            "initial_lrs": list(self._rates.initial),
            "learning_rate": self._learning_rate,
            "policy": self.policy.state_dict(),
            "run": self._run.state_dict(),
            "update_size": self._update_size.value,
            "history": [dataclasses.asdict(record) for record in self.history],
            "snapshot": None if self.snapshot is None else self.snapshot.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, and set the optimizer's learning rates to it.

        The model and the optimizer are to be loaded as well.

        Raises:
            ValueError: The state is not one of this controller's.
        """
        found = state_dict.get("format")
        if found != FORMAT:
            raise ValueError(f"not a controller's state: format {found!r}")
        self._rates.load(state_dict["initial_lrs"])
        self.iteration = int(state_dict["iteration"])
        self._learning_rate = float(state_dict["learning_rate"])
        self.policy.load_state_dict(state_dict["policy"])
        self._run.load_state_dict(state_dict["run"])
        self._update_size.value = state_dict["update_size"]
        self.history = [Record(**record) for record in state_dict["history"]]
        if self.snapshot is not None:
            self.snapshot.load_state_dict(state_dict["snapshot"])
        self._write()

    # ---------------------------------------------------------------------- deciding

    def _last_judged(self) -> Record | None:
        """Return the last decision that was taken on an evaluation."""
        judged = (r for r in reversed(self.history) if r.val_loss is not None)
        return next(judged, None)

    def _carry_out(
        self, decision: Decision, val_loss: float | None, diverged: bool = False
    ) -> Record:
        """Do what was decided, and remember it."""
        undone = decision.undo and bool(self.snapshot) and not self.dry_run
        if self.snapshot is not None and not self.dry_run:
            if undone:
                self.snapshot.restore()
            elif self.iteration < self.max_iters:
                self.snapshot.take()
        low, high = self.config.min_lr, self.config.max_lr
        rate = float(np.clip(self._learning_rate * decision.factor, low, high))
        self._learning_rate = rate
        self._write()
        record = Record(
            iteration=self.iteration,
            val_loss=val_loss,
            learning_rate=rate,
            factor=decision.factor,
            undo=decision.undo,
            undone=undone,
            diverged=diverged,
        )
        self.history.append(record)
        _log.info("%s%s", "dry run: " if self.dry_run else "", record)
        return record

    def _before_update(self, *_: object) -> None:
        """Hook: decide if nobody has yet; see that the rate is the one decided."""
        self._rates.verify(self.iteration)
        observed = "update_size" in self.config.features
        if observed and self.iteration + 1 in self._points:
            self._update_size.before_update()
        if self.history:
            self._write()  # to the last bit, whatever rounding was let through
            return
        decision = self.policy.start()
        if decision is None:
            warnings.warn(
                "training starts before the first evaluation: the policy keeps the "
                "learning rate until then; call step(val_loss) before the first update",
                stacklevel=3,
            )
            decision = Decision(1.0)
        self._carry_out(decision, None)

    def _after_update(self, *_: object) -> None:
        """Hook: count the update; set the rate of the next one."""
        self._rates.verify(self.iteration)
        self._update_size.after_update()
        self.iteration += 1
        self._write()

    # ------------------------------------------------------------------ the optimizer

    def _schedule(self, iteration: ArrayLike) -> NDArray[np.float64]:
        """Return the factor of warm-up and base schedule at `iteration`."""
        return schedule_factor(
            self.config.base_schedule, iteration, self.max_iters, self.warmup_iters
        )

    def _write(self) -> None:
        """Set the learning rates of the next update."""
        self._rates.write(self._learning_rate * float(self._schedule(self.iteration)))

    def _check_learning_rate(self) -> None:
        value = self._learning_rate
        low, high = self.config.min_lr, self.config.max_lr
        check_real("the first group's learning rate", value, 0.0, low_open=True)
        if not low <= value <= high:
            raise ValueError(
                "the first group's learning rate must be in [min_lr, max_lr] = "
                f"[{low:g}, {high:g}], got {value!r}; pass a wider min_lr or max_lr"
            )

    def _prepare_snapshot(
        self, undo: Stateful | Sequence[Stateful], device: str
    ) -> Snapshot | None:
        objects = tuple(undo) if isinstance(undo, list | tuple) else (undo,)
        if objects:
            return Snapshot([*objects, self.optimizer], device)
        if self.config.allow_undo and not self.dry_run:
            raise ValueError(
                "the policy takes chunks of training back: pass undo=model (or several "
                "objects with state_dict and load_state_dict), or a policy that needs "
                "no undo, such as policy='default_without_undo'"
            )
        return None


def _own(policy: str | os.PathLike[str] | Policy) -> Policy:
    """Return the named policy, or a copy: a policy remembers the run it is in."""
    if isinstance(policy, str | os.PathLike):
        return load_controller(policy)
    if not hasattr(policy, "act"):
        raise TypeError(f"policy must be a policy, a name or a path, got {policy!r}")
    return copy.deepcopy(policy)
