"""The `Trainer` protocol: a population of training runs, steered by learning rates.

A trainer knows nothing of agents, rewards or episodes. Everything it takes and returns
has the population as its first axis, E; the single environment is E = 1 of the same
code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class Trainer(Protocol):
    """A population of training runs whose learning rate is a control input.

    Attributes:
        size: E, the number of members.
    """

    size: int

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start fresh runs: own initialization, data order, dropout; iteration 0."""

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train every member e for `iterations` (or `iterations[e]`) updates.

        Args:
            iterations: One number, or one per member; 0 leaves a member untouched.
            learning_rate: (E,), or (E, n) with a rate per update, n >= iterations.
            on_iteration: Called after every update of the population.

        Returns:
            Mean training loss over the chunk, (E,), nats per character; NaN for a
            member that made no update.
        """

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss; changes nothing that training can see.

        Args:
            members: Whose, (len(members),); `None` is everybody's, (E,).
        """

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members met a non-finite loss or gradient and are frozen."""

    def snapshot(self, members: Sequence[int]) -> Mapping[str, Any]:
        """Copy everything that training of `members` depends on."""

    def restore(
        self, members: Sequence[int], state: Mapping[str, Any], *, rewind: bool = True
    ) -> None:
        """Put a snapshot back; training continues bit for bit.

        With ``rewind=False`` weights and optimizer return but the iteration count and
        the data stream stay where they are: the spent iterations stay spent.
        """

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return (E,) arrays: grad_norm, update_size, tokens, seconds.

        Args:
            names: What is asked for; others may be missing. `None` is everything.
        """


def mask_of(members: Sequence[int] | NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return which of `size` members are among `members`, (size,) bool."""
    mask: NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)
    mask[members] = True
    return mask


def check_counts(iterations: int | ArrayLike, size: int) -> NDArray[np.int64]:
    """Return the updates per member, (E,), of a population of `size`.

    Raises:
        ValueError: A number of iterations is negative or no integer, or the shape does
            not fit.
    """
    counts = np.asarray(iterations)
    if counts.dtype.kind not in "iu" or np.count_nonzero(counts < 0):
        raise ValueError(f"iterations must be integers >= 0, got {iterations!r}")
    if counts.shape == (size,):
        return counts.astype(np.int64, copy=False)
    return np.broadcast_to(counts, (size,)).astype(np.int64)


def check_chunk(
    iterations: int | ArrayLike, learning_rate: ArrayLike, size: int
) -> tuple[NDArray[np.int64], FloatArray]:
    """Check what `Trainer.train` is given, for a population of `size`.

    Returns:
        The updates per member, (E,), and a rate for each of them, (E, n).

    Raises:
        ValueError: A number of iterations or a learning rate is negative or not finite,
            or a shape does not fit.
    """
    counts = check_counts(iterations, size)
    steps = int(counts.max(initial=0))
    rates = np.asarray(learning_rate, dtype=np.float64)
    if rates.shape == (size,):
        rates = np.broadcast_to(rates[:, None], (size, steps))
    if rates.ndim != 2 or rates.shape[0] != size or rates.shape[1] < steps:
        raise ValueError(
            f"learning_rate must have shape ({size},) or ({size}, n >= {steps}), got "
            f"{rates.shape}"
        )
    rates = rates[:, :steps]
    wrong = ~((rates >= 0.0) & (rates < np.inf))  # true for NaN
    if wrong.any():
        wrong &= np.arange(steps) < counts[:, None]  # what is not used may be anything
    if wrong.any():
        raise ValueError(
            f"learning_rate must be finite and not negative, got {rates[wrong][0]!r}"
        )
    return counts, np.ascontiguousarray(rates)
