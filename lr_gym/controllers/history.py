"""What a controller did: its decisions, as learning rates per update, CSV, a replay."""

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
    """One decision and what it did.

    Attributes:
        iteration: Updates made before it.
        val_loss: What it was taken on; `None` at the start of a loop that trains before
            it evaluates.
        learning_rate: Of the first parameter group from here on, before warm-up.
        factor: What the policy multiplied it by; bounds act afterwards.
        undo: Whether the policy wanted the last chunk taken back.
        undone: Whether it was: weights and optimizer are those of the decision before.
        diverged: Whether a loss was not finite, or far above the first one.
    """

    iteration: int
    val_loss: float | None
    learning_rate: float
    factor: float = 1.0
    undo: bool = False
    undone: bool = False
    diverged: bool = False


def rates_per_update(history: Sequence[Record], iterations: int) -> NDArray[np.float64]:
    """Return the rate that the decisions gave to each of `iterations` updates."""
    starts = [record.iteration for record in history]
    rates = np.array([record.learning_rate for record in history], dtype=np.float64)
    rows = np.searchsorted(starts, np.arange(iterations), side="right") - 1
    return np.asarray(rates[rows])


def write_schedule(
    path: str | os.PathLike[str],
    history: Sequence[Record],
    rates: NDArray[np.float64],
) -> None:
    """Write a CSV with a line per update.

    Args:
        path: The file.
        history: Fills ``val_loss``, ``factor`` and ``undone`` (0 or 1) in the line of
            the first update after a decision; the last one where there are several.
        rates: The learning rate of every update, (iterations,).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    decided = {record.iteration: record for record in history}
    for iteration, rate in enumerate(rates.tolist()):
        record = decided.get(iteration)
        news: tuple[object, ...] = ("", "", "")
        if record is not None:
            news = (record.val_loss, record.factor, int(record.undone))
        writer.writerow((iteration, rate, *news))
    write_text(os.fspath(path), text.getvalue())
