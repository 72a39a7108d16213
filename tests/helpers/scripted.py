"""A trainer whose losses are given beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.trainers.base import FloatArray, check_chunk


class ScriptedTrainer:
    """A trainer whose validation losses are given, one list per member."""

    def __init__(self, losses: Sequence[Sequence[float]]) -> None:
        self.losses = [list(member) for member in losses]
        self.size = len(losses)
        self.chunks = np.zeros(self.size, dtype=int)
        self.updates = np.zeros(self.size, dtype=int)
        self.rates: list[FloatArray] = []
        self.learning_rates = np.zeros(self.size)  # of the last updates
        self.restored: list[tuple[int, Any, bool]] = []

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        self.chunks[list(members)] = 0
        self.updates[list(members)] = 0
        self.learning_rates[list(members)] = 0.0

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        counts, rates = check_chunk(iterations, learning_rate, self.size)
        self.rates.append(rates)
        self.updates += counts
        trained = np.flatnonzero(counts)
        self.learning_rates[trained] = rates[trained, counts[trained] - 1]
        self.chunks += counts > 0
        return self.evaluate()

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        pairs = zip(self.losses, self.chunks, strict=True)
        loss = np.array([losses[min(c, len(losses) - 1)] for losses, c in pairs])
        return loss if members is None else loss[list(members)]

    def diverged(self) -> NDArray[np.bool_]:
        return np.zeros(self.size, dtype=bool)

    def snapshot(self, members: Sequence[int]) -> Mapping[str, Any]:
        return {"chunks": self.chunks[list(members)].copy()}

    def restore(
        self, members: Sequence[int], state: Mapping[str, Any], *, rewind: bool = True
    ) -> None:
        self.restored.append((members[0], int(state["chunks"][0]), rewind))

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        ones = np.ones(self.size)
        names = ("grad_norm", "update_size", "seconds")
        return {
            **dict.fromkeys(names, ones),
            "tokens": self.updates * 10.0,
            "learning_rate": self.learning_rates.copy(),
        }
