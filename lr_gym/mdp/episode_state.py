"""Where episodes stand: what a decision reads and changes, as arrays or as numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.arithmetic import Value

# Some of E members: all of them, those at some places, or one, in numbers.
Rows: TypeAlias = NDArray[np.int64] | int | None


@dataclass(kw_only=True)
class EpisodeState:
    """Where E episodes stand: arrays of shape (E,); of one, also plain numbers.

    Losses are nats per character.
    """

    learning_rate: Value  # the agent's, before the base schedule
    decision: Value  # decisions taken, integers
    iteration: Value  # updates spent, integers
    initial_loss: Value  # validation loss of the untrained model
    val_loss: Value
    previous_loss: Value  # validation loss one decision ago
    best_val_loss: Value
    train_loss: Value  # mean over the last chunk; initial_loss before any
    # Read off the trainer only where they are among the features, else 0:
    grad_norm: Value  # mean over the last chunk, before clipping
    update_size: Value  # of the last update
    episode_return: Value  # undiscounted, so far
    diverged: Value
    terminated: Value

    @classmethod
    def empty(cls, size: int) -> EpisodeState:
        """Return the state of `size` episodes that have all ended."""
        kinds: dict[str, Any] = {
            "decision": np.int64,
            "iteration": np.int64,
            "diverged": np.bool_,
            "terminated": np.bool_,
        }
        arrays = {f.name: np.zeros(size, kinds.get(f.name, float)) for f in fields(cls)}
        arrays["terminated"][:] = True
        return cls(**arrays)

    def take(self, rows: Rows) -> EpisodeState:
        """Return the state of some members; of all, with the same arrays.

        To be changed by new values of its fields, and given back by `put`.
        """
        own = vars(self)
        if isinstance(rows, int):
            own = {name: values.item(rows) for name, values in own.items()}
        elif rows is not None:
            own = {name: values[rows] for name, values in own.items()}
        return EpisodeState(**own)

    def put(self, rows: Rows, state: EpisodeState) -> None:
        """Let some members be where `state`, from `take`, has come to."""
        for name, values in vars(state).items():
            if rows is None:
                setattr(self, name, values)
            else:
                getattr(self, name)[rows] = values


def entries(values: ArrayLike, rows: Rows) -> Value:
    """Return a copy of the entries of some members; one member's as Python's number."""
    values = np.asarray(values)
    if isinstance(rows, int):
        return values.item(rows)
    return values.copy() if rows is None else values[rows]
