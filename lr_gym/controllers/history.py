"""A controller's decisions, as learning rates per update and as CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def write_schedule(
    path: str | os.PathLike[str],
    history: Sequence[Record],
    learning_rates: NDArray[np.float64],
) -> None:
    """Write a CSV file with the columns `COLUMNS`, one row per update.

    Args:
        path: The file; ``~`` is the home folder. Missing folders are created.
        history: Fills ``val_loss``, ``factor`` and ``undone`` (0 or 1) in the row of
            the first update after a decision. Of several decisions at one iteration,
            the last counts.
        learning_rates: The learning rate of every update, (iterations,).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    by_iteration = {record.iteration: record for record in history}
    for iteration, learning_rate in enumerate(learning_rates.tolist()):
        record = by_iteration.get(iteration)
        decision: tuple[object, ...] = ("", "", "")
        if record is not None:
            decision = (record.val_loss, record.factor, int(record.undone))
        writer.writerow((iteration, learning_rate, *decision))
    write_text(path, text.getvalue())
