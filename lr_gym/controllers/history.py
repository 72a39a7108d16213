"""What controllers share: their decisions, and the learning rates that they set."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.hooks import RemovableHandle

from lr_gym.controllers.param_group_lrs import ParamGroupLRs
from lr_gym.files import write_text

COLUMNS = ("iteration", "learning_rate", "val_loss", "factor", "undone")


@dataclass(frozen=True)
class Record:
    """One decision and its effects.

    Attributes:
        iteration: Updates made before the decision.
        val_loss: The loss that the decision used, nats; `None` for a start without an
            evaluation.
        learning_rate: The first parameter group's, after the decision and before
            warm-up and base schedule.
        factor: What the policy multiplied the learning rate by, before clipping to the
            bounds.
        undo: Whether the policy decided to undo the last chunk of training.
        undone: Whether the controller undid it: model and optimizer are then as they
            were at the previous decision.
        diverged: Whether a loss was not finite, or far above the first one.
    """

    iteration: int
    val_loss: float | None
    learning_rate: float
    factor: float = 1.0
    undo: bool = False
    undone: bool = False
    diverged: bool = False


def decided_learning_rates(
    history: Sequence[Record], iterations: int
) -> NDArray[np.float64]:
    """Return the decided learning rate at each of the updates, (iterations,)."""
    starts = [record.iteration for record in history]
    decided = np.array([record.learning_rate for record in history], dtype=np.float64)
    last = np.searchsorted(starts, np.arange(iterations), side="right") - 1
    return np.asarray(decided[last])


class ControlledLR(LRScheduler):
    """A scheduler that sets learning rates in an optimizer's hooks.

    Attributes:
        optimizer: The optimizer.
        dry_run: Whether it only measures and logs.
        history: One `Record` per decision.
    """

    history: list[Record]
    dry_run: bool
    _group_lrs: ParamGroupLRs
    _hooks: tuple[RemovableHandle, ...]

    def used_learning_rates(self) -> NDArray[np.float64]:
        """Return one learning rate per update made, (updates,)."""
        raise NotImplementedError

    def _used_factors(self) -> list[float]:
        """Return the factor on the initial learning rates at every update made."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the learning rates of the next update, one per parameter group."""
        return [*self._group_lrs.read()]

    def export_schedule(self, path: str | os.PathLike[str]) -> None:
        """Write `used_learning_rates` and the decisions as CSV, one row per update.

        The columns are ``iteration``, ``learning_rate``, ``val_loss``, ``factor`` and
        ``undone`` (0 or 1). The last three are empty in rows without a decision. Of
        several decisions at one iteration, the last counts.

        Args:
            path: The file; ``~`` is the home folder. Missing folders are created.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        by_iteration = {record.iteration: record for record in self.history}
        for iteration, rate in enumerate(self.used_learning_rates().tolist()):
            record = by_iteration.get(iteration)
            decision: tuple[object, ...] = ("", "", "")
            if record is not None:
                decision = (record.val_loss, record.factor, int(record.undone))
            writer.writerow((iteration, rate, *decision))
        write_text(path, text.getvalue())

    def as_lambda_lr(self, optimizer: Optimizer) -> LambdaLR:
        """Return a scheduler that replays the learning rates without evaluating.

        Args:
            optimizer: For a new run, with the same initial learning rates. They stay
                constant after the last replayed update.

        Raises:
            RuntimeError: No update was made, or this is a dry run.
        """
        factors = [] if self.dry_run else self._used_factors()
        if not factors:
            raise RuntimeError("nothing to replay: no update was made, or a dry run")
        last = len(factors) - 1
        return LambdaLR(optimizer, lambda update: factors[min(update, last)])

    def detach(self) -> None:
        """Stop controlling the optimizer; its learning rates stay as they are."""
        for hook in self._hooks:
            hook.remove()
