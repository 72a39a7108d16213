"""`SurrogateTrainer`: E simulated training runs from a fitted law of the loss curve.

The same protocol as `PopulationTrainer`, without a model or a text: millions of
decisions per second. Losses are what `law.py` predicts, plus noise; the numbers
are as good as the law, within the rates and the run length that it was fitted on.
Random numbers are functions of a member's seed and iteration: the same member goes
through the same run in a population of any size, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.arithmetic import (
    ARRAYS,
    FLOATS,
    Arithmetic,
    Value,
    hashed,
    normal,
    second_normal,
    splitmix64,
)
from lr_gym.surrogate.chunk import (
    evaluated,
    mean_of_batches,
    norms,
    segments,
    train_segment,
    update_prefix,
)
from lr_gym.surrogate.law import (
    STATE_NAMES,
    LossLaw,
    RunParams,
    State,
    initial_state,
    validation_loss,
)
from lr_gym.trainers.base import FloatArray, check_chunk, check_counts
from lr_gym.validation import check_integer


class SurrogateTrainer:
    """E simulated runs of one law, as `Trainer` describes.

    A member's seed draws how fast it learns and how high a rate it bears, from the
    law's spread over seeds, and the noise of its losses. A member whose rate exceeds
    `divergence_rate` is frozen with a non-finite loss.
    """

    def __init__(self, law: LossLaw, size: int = 1) -> None:
        """Prepare the population; every member starts as a run of seed 0.

        Args:
            law: What the runs follow.
            size: E, at least 1.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: `size` is below 1.
        """
        if not isinstance(law, LossLaw):
            raise TypeError(f"law must be a LossLaw, got {law!r}")
        check_integer("size", size, 1)
        self.size = size
        self.law = law
        self._constants = law.constants
        tokens = law.training.batch_size * law.training.block_size
        self._tokens_per_update = np.float64(tokens)
        self._key = np.zeros(size, dtype=np.uint64)
        self._members = RunParams(np.ones(size), np.zeros(size))
        self._state: State = {name: np.zeros(size) for name in STATE_NAMES}
        self._iteration = np.zeros(size, dtype=np.int64)
        self._log_rate = np.zeros(size)  # ln of the rate of the last update
        self._learning_rate = np.zeros(size)  # of the last update; 0 before any
        self._loss = np.zeros(size)  # of validation, without noise
        self._measured = np.zeros(size)  # the same as an evaluation shows it
        self._finite = np.ones(size, dtype=np.bool_)
        self._seconds = np.zeros(size)
        self.reset(range(size), [0] * size)

    # ---------------------------------------------------------------- the protocol

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start fresh runs for `members`, one seed each; see `Trainer.reset`."""
        if len(members) != len(seeds):
            raise ValueError(f"got {len(members)} members but {len(seeds)} seeds")
        law, of = self._constants, ARRAYS
        rows: Value = list(members)
        seed: Value = np.array(seeds, dtype=np.uint64)
        if len(rows) == 1:
            rows, seed, of = rows[0], seed.item(), FLOATS
        # One round apart: seeds that follow each other have unrelated streams.
        key = splitmix64(hashed(seed, 1))
        own = hashed(key - 1, 1)
        efficiency = of.exp(law.efficiency_spread * normal(own, of))
        log_tolerance = law.tolerance_spread * second_normal(own, of)
        fresh = initial_state(law, RunParams(efficiency, log_tolerance), of)
        for name, values in fresh.items():
            self._state[name][rows] = values
        self._key[rows] = key
        self._members.efficiency[rows] = efficiency
        self._members.log_tolerance[rows] = log_tolerance
        self._iteration[rows] = 0
        self._log_rate[rows] = fresh["tolerance"]
        self._learning_rate[rows] = 0.0
        self._loss[rows] = validation_loss(law, fresh, fresh["tolerance"], of)
        self._finite[rows] = True
        self._seconds[rows] = 0.0
        self._measured[rows] = self._loss[rows]  # untrained models hardly differ

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Advance each member by its number of updates; see `Trainer.train`.

        A constant rate is one step of the law; one that varies is averaged over
        `SEGMENT` updates at a time.

        Raises:
            ValueError: A learning rate or a number of iterations is negative or not
                finite, or shapes do not fit.
        """
        started = time.perf_counter()
        if np.ndim(learning_rate) == 1:
            counts = check_counts(iterations, self.size)
            rates = np.asarray(learning_rate, dtype=np.float64)
            self._check_rates(rates, counts)
            losses = self._run(slice(None), counts, rates)
        else:
            counts, plan = check_chunk(iterations, learning_rate, self.size)
            losses = self._run_plan(counts, plan)
        if on_iteration is not None:
            for _ in range(int(counts.max())):
                on_iteration()
        elapsed = time.perf_counter() - started
        if self.size == 1:
            self._seconds[0] += elapsed if counts.item() else 0.0
        else:
            self._seconds += (counts > 0) * elapsed
        return losses

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss, the same however often; see `Trainer`.

        Args:
            members: Whose, (len(members),); `None` is everybody's, (E,).
        """
        measured = self._measured
        return measured.copy() if members is None else measured.take(members)

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members are frozen, (E,) bool."""
        return ~self._finite

    def snapshot(self, members: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Copy the rows of `members`: plain arrays, ready for safetensors."""
        rows = np.array(members, dtype=np.int64)
        return {name: values.take(rows) for name, values in self._columns().items()}

    def restore(
        self,
        members: Sequence[int],
        state: Mapping[str, NDArray[Any]],
        *,
        rewind: bool = True,
    ) -> None:
        """Put a snapshot back; see `Trainer.restore`.

        Raises:
            ValueError: The state is not one of this trainer's: names or shapes differ.
        """
        rows = list(members)
        columns = self._columns()
        for name in columns:
            found = np.shape(state[name]) if name in state else None
            if found != (len(rows),):
                raise ValueError(
                    f"state[{name!r}] must have shape ({len(rows)},), got {found}"
                )
        for name, values in columns.items():
            if rewind or name != "iteration":
                values[rows] = state[name]
        bits = hashed(self._key[rows], self._iteration[rows].astype(np.uint64))
        loss = self._loss[rows]
        shown = evaluated(self._constants, loss, self._log_rate[rows], bits, ARRAYS)
        shown = np.where(self._iteration[rows] > 0, shown, loss)
        self._measured[rows] = np.where(self._finite[rows], shown, np.nan)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return a copy of all members' state, for `safetensors.numpy.save_file`."""
        return self.snapshot(range(self.size))

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state_dict`; raises ValueError where it does not fit."""
        self.restore(range(self.size), state)

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return what a training script would log, (E,) each; see `Trainer`.

        ``grad_norm`` and ``update_size`` are the law's log-linear models of what was
        recorded, without noise. ``tokens``: characters that a real run would have
        trained on. ``seconds``: wall time in `train`, shared by all members.
        ``learning_rate``: of the last simulated update.
        """
        found: dict[str, FloatArray] = {}
        if names is None or "learning_rate" in names:
            found["learning_rate"] = self._learning_rate.copy()
        if names is None or "tokens" in names:
            found["tokens"] = self._iteration * self._tokens_per_update
        if names is None or "seconds" in names:
            found["seconds"] = self._seconds.copy()
        if names is None or "grad_norm" in names or "update_size" in names:
            state, of = self._state, ARRAYS
            log_rate: Value = self._log_rate
            if self.size == 1:
                state = {name: values.item() for name, values in state.items()}
                log_rate, of = log_rate.item(), FLOATS
            grad_norm, update_size = norms(self._constants, state, log_rate, of)
            begun = self._iteration > 0
            found["grad_norm"] = begun * grad_norm
            found["update_size"] = begun * update_size
        return found

    # ------------------------------------------------------------------------ the runs

    @property
    def iteration(self) -> NDArray[np.int64]:
        """Updates spent by each member, (E,)."""
        return self._iteration.copy()

    def _run_plan(self, counts: NDArray[np.int64], plan: FloatArray) -> FloatArray:
        """Advance members by a plan of rates, (E, n); return their mean train losses.

        Those whose rate is constant make one step, as if all were: what a member goes
        through does not hang on its neighbours. The others go on segment by segment.
        """
        if not plan.shape[1]:  # nobody makes an update
            return np.full(self.size, np.nan)
        if self.size == 1:
            constant = (plan == plan[0, 0]).all()
            return self._run(slice(None), counts, plan[:, 0] if constant else plan)
        within = np.arange(plan.shape[1]) < counts[:, None]
        varies = ((plan != plan[:, :1]) & within).any(axis=1)
        losses = self._run(slice(None), np.where(varies, 0, counts), plan[:, 0])
        rows = np.flatnonzero(varies)
        if len(rows):
            # The longest first: whoever goes on is then always the first so many.
            rows = rows[np.argsort(-counts[rows], kind="stable")]
            rates = np.where(within[rows], plan[rows], 0.0)
            losses[rows] = self._run(rows, counts[rows], rates)
        return losses

    def _run(
        self,
        rows: slice | NDArray[np.int64],
        counts: NDArray[np.int64],
        rates: FloatArray,
    ) -> FloatArray:
        """Advance some members by `counts` updates each; return their train losses.

        `rates` are (R,) or (R, n), 0 beyond a member's count; see `segments`.
        """
        if self.size == 1 and counts.item() and self._finite.item():
            return np.array([self._learn_alone(0, counts, rates)])
        finite = self._finite[rows]
        running = (counts > 0) & finite
        if np.count_nonzero(running) == len(running):
            return self._learn(rows, counts, rates)
        losses = np.full(len(counts), np.nan)
        self._iteration[rows] += counts * ~finite  # frozen members spend theirs too
        chosen = np.flatnonzero(running)
        if len(chosen):
            acting = chosen if isinstance(rows, slice) else rows[chosen]
            losses[chosen] = self._learn(acting, counts[chosen], rates[chosen])
        return losses

    def _learn(
        self,
        rows: slice | NDArray[np.int64],
        counts: NDArray[np.int64],
        rates: FloatArray,
    ) -> FloatArray:
        """Advance members that are not frozen; return their mean train losses."""
        if len(counts) == 1:
            row = 0 if isinstance(rows, slice) else int(rows[0])
            return np.array([self._learn_alone(row, counts, rates)])
        law = self._constants
        last = rates if rates.ndim == 1 else rates[np.arange(len(counts)), counts - 1]
        self._learning_rate[rows] = last
        whole = isinstance(rows, slice)
        members = self._members if whole else self._members.take(rows)
        state: State = (
            self._state if whole else {k: v[rows] for k, v in self._state.items()}
        )
        loss = self._loss[rows]
        total, log_rate, highest = np.zeros((3, len(counts)))
        for lengths, rate in segments(counts, rates):
            active = slice(len(lengths))
            highest[active] = np.maximum(highest[active], rate)
            before = {name: values[active] for name, values in state.items()}
            after, log_rate[active], found, middle = train_segment(
                law, members.take(active), before, loss[active], rate, lengths, ARRAYS
            )
            total[active] += middle * lengths
            loss = update_prefix(loss, found)
            state = {
                name: update_prefix(state[name], after[name]) for name in STATE_NAMES
            }
        if whole:
            self._state = state
        else:
            for name in STATE_NAMES:
                self._state[name][rows] = state[name]
        losses: FloatArray = self._book(
            rows, counts, loss, log_rate, total, highest, ARRAYS
        )
        return losses

    def _learn_alone(
        self, row: int, counts: NDArray[np.int64], rates: FloatArray
    ) -> Value:
        """Do what `_learn` does, bit for bit, for one member and without arrays."""
        law, members = self._constants, self._members
        last = rates[0] if rates.ndim == 1 else rates[0, counts[0] - 1]
        self._learning_rate[row] = last
        alone = RunParams(members.efficiency.item(row), members.log_tolerance.item(row))
        state = {name: values.item(row) for name, values in self._state.items()}
        loss, log_rate = self._loss.item(row), 0.0
        total = highest = 0.0
        for lengths, rate in segments(counts, rates):
            length, own_rate = lengths.item(), rate.item()
            highest = max(highest, own_rate)
            state, log_rate, loss, middle = train_segment(
                law, alone, state, loss, own_rate, length, FLOATS
            )
            total += middle * length
        for name in STATE_NAMES:
            self._state[name][row] = state[name]
        return self._book(row, counts.item(), loss, log_rate, total, highest, FLOATS)

    def _book(
        self,
        rows: Value,
        counts: Value,
        loss: Value,
        log_rate: Value,
        total: Value,
        highest: Value,
        of: Arithmetic,
    ) -> Value:
        """Keep what members have come to; return their mean train losses."""
        law = self._constants
        iteration = of.entry(self._iteration, rows) + counts
        bits = hashed(of.entry(self._key, rows), of.unsigned(iteration))
        measured = evaluated(law, loss, log_rate, bits, of)
        train_loss = mean_of_batches(law, total / counts, counts, bits, of)
        fatal = highest > law.divergence_rate
        if of.any(fatal):
            self._finite[rows] = of.where(fatal, False, True)
            train_loss = of.where(fatal, math.nan, train_loss)
            measured = of.where(fatal, math.nan, measured)
        self._iteration[rows] = iteration
        self._loss[rows] = loss
        self._log_rate[rows] = log_rate
        self._measured[rows] = measured
        return train_loss

    def _check_rates(self, rates: FloatArray, counts: NDArray[np.int64]) -> None:
        if rates.shape != (self.size,):
            raise ValueError(
                f"learning_rate must have shape ({self.size},) or ({self.size}, n), "
                f"got {rates.shape}"
            )
        if self.size == 1 and 0.0 <= rates.item() < math.inf:
            return
        right = (rates >= 0.0) & (rates < np.inf)  # false for NaN
        if np.count_nonzero(right) == self.size:
            return
        wrong = ~right & (counts > 0)
        if wrong.any():
            raise ValueError(
                "learning_rate must be finite and not negative, got "
                f"{rates[wrong][0]!r}"
            )

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Return everything that the future of the runs depends on, by name."""
        return {
            **self._state,
            "key": self._key,
            "efficiency": self._members.efficiency,
            "log_tolerance": self._members.log_tolerance,
            "iteration": self._iteration,
            "log_rate": self._log_rate,
            "learning_rate": self._learning_rate,
            "loss": self._loss,
            "finite": self._finite,
        }
