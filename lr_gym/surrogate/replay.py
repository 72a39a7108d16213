"""What a law predicts for recorded runs: losses and states at their evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.surrogate.law import (
    SEGMENT,
    STATE_NAMES,
    FloatArray,
    LawConstants,
    RunParams,
    State,
    advance,
    initial_state,
    validation_loss,
)
from lr_gym.surrogate.runs import RecordedRun, undone_chunks
from lr_gym.validation import field_names

IntArray = NDArray[np.int64]


class Replay:
    """Runs that are cut into segments, to be predicted under many laws.

    The runs may differ in length and in their evaluations. A segment has one learning
    rate, the mean of its iterations: `SEGMENT` of them, or more if their learning rates
    differ by no more than the factor 1 + `tolerance`.
    """

    def __init__(
        self,
        rates: Sequence[FloatArray],
        points: Sequence[IntArray],
        undone: NDArray[np.bool_] | None = None,
        *,
        tolerance: float = 0.0,
    ) -> None:
        """Cut the runs.

        Args:
            rates: Learning rate of every iteration of each run.
            points: Iterations of the evaluations of each run, increasing.
            undone: Whether a run undoes its last chunk before it trains to each of
                its points, (R, m); `None` is never.
            tolerance: 0 has segments of `SEGMENT` iterations. Damage needs that.
        """
        runs = [
            _cut(rate, point, tolerance)
            for rate, point in zip(rates, points, strict=True)
        ]
        self.runs = len(runs)
        self.points = max(len(point) for point in points)
        count = max(len(lengths) for lengths, _, _ in runs)
        self.lengths = np.zeros((len(runs), count))
        self.rates = np.zeros((len(runs), count))
        # Segments before each evaluation; evaluations that a run lacks are never met.
        self.ends = np.full((len(runs), self.points), -1)
        for run, (lengths, means, ends) in enumerate(runs):
            self.lengths[run, : len(lengths)] = lengths
            self.rates[run, : len(means)] = means
            self.rates[run, len(means) :] = means[-1] if len(means) else 0.0
            self.ends[run, : len(ends)] = ends
        # At the evaluation before it; no chunk follows the last one.
        self.undone = None if undone is None else np.roll(undone, -1, axis=1)
        if self.undone is not None:
            self.undone[:, -1] = False

    def predict(
        self, law: LawConstants, members: RunParams | None = None
    ) -> tuple[FloatArray, State]:
        """Return the validation losses and the states at the evaluations.

        Args:
            law: The constants, numbers or (K, 1).
            members: What differs between runs, (R,) or (K, R); `None` is nothing.

        Returns:
            (R, m) or (K, R, m), m the most evaluations of a run; NaN where a run has
            fewer.
        """
        if members is None:
            members = RunParams(np.ones(self.runs), np.zeros(self.runs))
        state = previous = initial_state(law, members)
        first_log_rate = state["tolerance"]
        shape = np.broadcast_shapes(first_log_rate.shape, np.shape(law.floor))
        saved = {name: np.full((*shape, self.points), np.nan) for name in STATE_NAMES}
        log_rates = np.log(np.maximum(self.rates, 1e-12))
        log_rate = np.empty((*shape, self.points))
        log_rate[...] = first_log_rate[..., None]
        for segment in range(self.rates.shape[1] + 1):
            rows, columns = np.nonzero(self.ends == segment)
            for name in STATE_NAMES if len(rows) else ():
                values = np.broadcast_to(state[name], shape)
                saved[name][..., rows, columns] = values[..., rows]
            if segment and len(rows):
                log_rate[..., rows, columns] = log_rates[rows, segment - 1]
            if self.undone is not None and len(rows):
                undo, evaluated = np.zeros((2, self.runs), dtype=np.bool_)
                undo[rows], evaluated[rows] = self.undone[rows, columns], True
                state = {k: np.where(undo, previous[k], v) for k, v in state.items()}
                previous = {
                    k: np.where(evaluated, state[k], v) for k, v in previous.items()
                }
            if segment < self.rates.shape[1]:
                rate, length = self.rates[:, segment], self.lengths[:, segment]
                state = advance(law, members, state, rate, length)
        return validation_loss(_with_points(law), saved, log_rate), saved

    def last_rates(self) -> FloatArray:
        """Return the learning rate before each evaluation, (R, m); NaN if none."""
        rates = np.full(self.ends.shape, np.nan)
        rows, columns = np.nonzero(self.ends > 0)
        rates[rows, columns] = self.rates[rows, self.ends[rows, columns] - 1]
        return rates


def replay_runs(runs: Sequence[RecordedRun], *, tolerance: float = 0.0) -> Replay:
    """Return recorded runs, ready to be predicted; see `Replay`."""
    rates, points = [run.rates for run in runs], [run.iterations for run in runs]
    undone = undone_chunks(runs)
    return Replay(rates, points, undone, tolerance=tolerance)


def predict(
    law: LawConstants,
    rates: FloatArray,
    points: IntArray,
    members: RunParams | None = None,
    undone: NDArray[np.bool_] | None = None,
) -> tuple[FloatArray, list[State]]:
    """Return the validation losses and the states of runs at the same iterations.

    Args:
        law: The constants, numbers or (K, 1).
        rates: Learning rate of every iteration, (R, n).
        points: Iterations, increasing, (m,).
        members: What differs between runs, (R,) or (K, R); `None` is nothing.
        undone: Whether a run undoes its last chunk before it trains to point i, (R, m);
            `None` is never.

    Returns:
        (R, m) or (K, R, m), and m states of (R,) or (K, R).
    """
    replay = Replay([*rates], [points] * len(rates), undone)
    losses, states = replay.predict(law, members)
    each = [{k: v[..., i] for k, v in states.items()} for i in range(len(points))]
    return losses, each


def _cut(
    rates: FloatArray, points: IntArray, tolerance: float
) -> tuple[list[float], list[float], list[int]]:
    """Return the segments' lengths and mean rates, and the segments before a point."""
    lengths: list[float] = []
    means: list[float] = []
    ends: list[int] = []
    start = 0
    for point in points:
        while start < point:
            stop = min(start + SEGMENT, int(point))
            while tolerance and stop < point:
                longer = rates[start : min(2 * stop - start, int(point))]
                if longer.max() > (1.0 + tolerance) * longer.min():
                    break
                stop = start + len(longer)
            lengths.append(float(stop - start))
            means.append(float(rates[start:stop].mean()))
            start = stop
        ends.append(len(lengths))
    return lengths, means, ends


def _with_points(law: LawConstants) -> LawConstants:
    """Return the constants with an axis for the evaluations."""
    changes: dict[str, Any] = {}
    for name in field_names(LawConstants):
        value: Any = getattr(law, name)
        if isinstance(value, np.ndarray):
            changes[name] = value[..., None]
    return dataclasses.replace(law, **changes)
