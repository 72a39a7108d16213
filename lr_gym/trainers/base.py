"""The `Trainer` protocol: a population of training runs, controlled by learning rates.

A trainer knows nothing of agents, rewards or episodes. The first axis of every argument
and result is the population, E members. The single environment uses the same code with
E = 1.
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
        """Start a fresh run for each of `members`, at iteration 0.

        Args:
            members: Indices of members.
            seeds: One per member; fixes initialization, data order and dropout.
        """

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train every member for its number of iterations.

        Args:
            iterations: One number, or one per member, (E,). 0 leaves a member
                unchanged.
            learning_rate: (E,), or (E, n) with one per iteration, n >= iterations.
            on_iteration: Called after every iteration of the population.

        Returns:
            Mean training loss over these iterations, (E,), nats per character; NaN for
            a member that made none.
        """

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss; training does not depend on this call.

        Args:
            members: Indices of members; `None` is all.

        Returns:
            (len(members),), or (E,) for all; nats per character.
        """

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members have diverged, (E,) bool.

        Their loss or gradient was not finite, and they are not updated any more.
        """

    def snapshot(self, members: Sequence[int]) -> Mapping[str, Any]:
        """Return a copy of everything that the training of `members` depends on."""

    def restore(
        self, members: Sequence[int], state: Mapping[str, Any], *, rewind: bool = True
    ) -> None:
        """Put a snapshot back; training then continues bit for bit.

        Args:
            members: Indices of members, in the snapshot's order.
            state: What `snapshot` returned.
            rewind: Whether the iteration count and the data stream go back too. With
                `False` only weights and optimizer do: spent iterations stay spent.
        """

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return measurements of every member, (E,) each, by name.

        ``learning_rate`` is the rate that the optimizer used at the member's last
        update, 0 before any: read it back from the optimizer. ``tokens`` counts the
        characters trained on since the reset. The environment's info needs both.
        ``grad_norm`` and ``update_size`` describe the last chunk and update; only the
        features of these names need them. ``seconds`` is wall time in `train`.

        Args:
            names: Names that the result must hold; it may hold others. `None` is all.
        """


def mask_of(members: Sequence[int] | NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return a mask that is true at `members`, (size,) bool."""
    mask: NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)
    mask[members] = True
    return mask


def check_counts(iterations: int | ArrayLike, size: int) -> NDArray[np.int64]:
    """Return each member's number of updates, (E,), for a population of `size`.

    Raises:
        ValueError: A number is negative or not an integer, or the shape does not fit.
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
    """Check the arguments of `Trainer.train`, for a population of `size`.

    Returns:
        Each member's number of updates, (E,), and the rate of each update, (E, n).

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
        wrong &= np.arange(steps) < counts[:, None]  # ignore rates that are not used
    if wrong.any():
        raise ValueError(
            f"learning_rate must be finite and not negative, got {rates[wrong][0]!r}"
        )
    return counts, np.ascontiguousarray(rates)
