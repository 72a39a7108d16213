"""The state of E episodes: what a decision reads and changes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
# Selects members from an array with one entry per member.
MemberIndex: TypeAlias = NDArray[np.int64] | slice


@dataclass(kw_only=True)
class EpisodeState:
    """The state of E episodes: arrays of shape (E,). Losses are nats per character."""

    learning_rate: FloatArray  # the agent's, before the base schedule
    decision: NDArray[np.int64]  # decisions taken
    iteration: NDArray[np.int64]  # updates spent
    initial_loss: FloatArray  # validation loss of the untrained model
    val_loss: FloatArray
    previous_loss: FloatArray  # validation loss one decision ago
    best_val_loss: FloatArray
    train_loss: FloatArray  # mean over the last chunk; initial_loss before any
    # The next two are 0 unless they are among the features:
    grad_norm: FloatArray  # mean over the last chunk, before clipping
    update_size: FloatArray  # of the last update
    episode_return: FloatArray  # undiscounted, so far
    diverged: NDArray[np.bool_]
    terminated: NDArray[np.bool_]

    @classmethod
    def empty(cls, size: int) -> EpisodeState:
        """Return the state of `size` terminated episodes."""
        dtypes: dict[str, Any] = {
            "decision": np.int64,
            "iteration": np.int64,
            "diverged": np.bool_,
            "terminated": np.bool_,
        }
        arrays = {
            f.name: np.zeros(size, dtypes.get(f.name, float)) for f in fields(cls)
        }
        arrays["terminated"][:] = True
        return cls(**arrays)

    def select(self, index: MemberIndex) -> EpisodeState:
        """Return a copy of some members' state."""
        copies = {name: values[index].copy() for name, values in vars(self).items()}
        return EpisodeState(**copies)

    def assign(self, index: MemberIndex, state: EpisodeState) -> None:
        """Overwrite some members' state, in place."""
        for name, values in vars(state).items():
            getattr(self, name)[index] = values


def per_member(name: str, value: object, count: int) -> list[Any]:
    """Return `value` once per member; a sequence must already be that long."""
    if not isinstance(value, list | tuple | np.ndarray):
        return [value] * count
    values = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if not isinstance(values, list):  # an array without dimensions
        return [values] * count
    if len(values) != count:
        raise ValueError(f"{name} must have {count} entries, got {len(values)}")
    return values
