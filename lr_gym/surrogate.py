"""`SurrogateTrainer`: E simulated training runs from a fitted law of the loss curve.

The same protocol as `PopulationTrainer`, without a model or a text: millions of
decisions per second. Losses are what `loss_law.py` predicts, plus noise; the numbers
are as good as the law, within the rates and the run length that it was fitted on.
Random numbers are functions of a member's seed and iteration: the same member goes
through the same run in a population of any size, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.config import check_integer
from lr_gym.loss_law import (
    LOWEST_RATE,
    SEGMENT,
    STATE_NAMES,
    LossLaw,
    Members,
    State,
    advance,
    generalization_gap,
    initial_state,
    validation_loss,
)
from lr_gym.trainer import FloatArray, check_chunk, check_counts

_TABLE_BITS = 16
# A fixed table of standard normal numbers; which one is used is hashed.
_NORMAL = np.random.Generator(np.random.PCG64(0)).standard_normal(2**_TABLE_BITS)
# The increment and the multipliers of SplitMix64 (Steele et al. 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(64 - _TABLE_BITS)
# One hash serves for two numbers: this brings its next bits to the top.
_SHIFT_LEFT = np.uint64(_TABLE_BITS)


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
        self._key = np.zeros(size, dtype=np.uint64)
        self._members = Members(np.ones(size), np.zeros(size))
        self._state = initial_state(law.constants, self._members)
        self._iteration = np.zeros(size, dtype=np.int64)
        self._log_rate = np.zeros(size)  # ln of the rate of the last update
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
        rows = list(members)
        law = self._constants
        # One round apart: seeds that follow each other have unrelated streams.
        key = _mix(_mix(np.array(seeds, dtype=np.uint64) + _GOLDEN))
        own = _mix(key + _GOLDEN - np.uint64(1))
        efficiency = np.exp(law.efficiency_spread * _normal(own))
        log_tolerance = law.tolerance_spread * _normal(own << _SHIFT_LEFT)
        fresh = initial_state(law, Members(efficiency, log_tolerance))
        for name, values in fresh.items():
            self._state[name][rows] = values
        self._key[rows] = key
        self._members.efficiency[rows] = efficiency
        self._members.log_tolerance[rows] = log_tolerance
        self._iteration[rows] = 0
        self._log_rate[rows] = fresh["tolerance"]
        self._loss[rows] = validation_loss(law, fresh, fresh["tolerance"])
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
        self._seconds += (counts > 0) * (time.perf_counter() - started)
        return losses

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss, the same however often; see `Trainer`.

        Args:
            members: Whose, (len(members),); `None` is everybody's, (E,).
        """
        return self._measured[slice(None) if members is None else members].copy()

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
        self._measured[rows] = self._evaluated(np.array(rows, dtype=np.int64))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return a copy of all members' state, for `safetensors.numpy.save_file`."""
        return self.snapshot(range(self.size))

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state_dict`; raises ValueError where it does not fit."""
        self.restore(range(self.size), state)

    def telemetry(self) -> dict[str, FloatArray]:
        """Return what a training script would log, (E,) each.

        ``grad_norm`` and ``update_size`` are the law's log-linear models of what was
        recorded, without noise. ``tokens``: characters that a real run would have
        trained on. ``seconds``: wall time in `train`, shared by all members.
        """
        law, state, training = self._constants, self._state, self.law.training
        begun = self._iteration > 0
        a, b, c, d = law.grad_norm
        progress = np.log(state["progress"] + law.progress_scale)
        norm = np.exp(a + b * self._log_rate + c * progress - d * state["damage"])
        a, b, c = law.update_size
        undamaged = np.log(state["undamaged"] + law.progress_scale)
        update = np.exp(a + b * self._log_rate + c * undamaged)
        per_iteration = training.batch_size * training.block_size
        return {
            "grad_norm": begun * norm,
            "update_size": begun * update,
            "tokens": np.asarray(self._iteration * float(per_iteration)),
            "seconds": self._seconds.copy(),
        }

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

        `rates` are (R,) or (R, n), 0 beyond a member's count; see `_segments`.
        """
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
        law = self._constants
        whole = isinstance(rows, slice)
        members = self._members if whole else self._members.take(rows)
        state: State = (
            self._state if whole else {k: v[rows] for k, v in self._state.items()}
        )
        loss = self._loss[rows]
        total, log_rate, highest = np.zeros((3, len(counts)))
        for lengths, rate in _segments(counts, rates):
            active = slice(len(lengths))
            log_rate[active] = np.log(np.maximum(rate, LOWEST_RATE))
            highest[active] = np.maximum(highest[active], rate)
            before = {name: values[active] for name, values in state.items()}
            after = advance(law, members.take(active), before, rate, lengths)
            found = validation_loss(law, after, log_rate[active])
            # Half way: a loss falls almost linearly once the first chunk is over.
            middle = 0.5 * (loss[active] + found)
            if law.gap_scale:
                middle -= generalization_gap(law, after)
            total[active] += middle * lengths
            loss = _overlaid(loss, found)
            state = {name: _overlaid(state[name], after[name]) for name in STATE_NAMES}
        if whole:
            self._state = state
        else:
            for name in STATE_NAMES:
                self._state[name][rows] = state[name]
        self._log_rate[rows] = log_rate
        self._loss[rows] = loss
        hashed = self._hash(rows, counts)
        self._iteration[rows] += counts
        self._measured[rows] = self._evaluated(rows, hashed)
        noise = law.batch_noise / np.sqrt(counts) * _normal(hashed << _SHIFT_LEFT)
        train_loss = np.maximum(total / counts + noise, 0.0)
        fatal = highest > law.divergence_rate
        if np.count_nonzero(fatal):
            self._finite[rows] &= ~fatal
            train_loss = np.where(fatal, np.nan, train_loss)
            self._measured[rows] = np.where(fatal, np.nan, self._measured[rows])
        return train_loss

    def _hash(
        self, rows: slice | NDArray[np.int64], counts: NDArray[np.int64] | int = 0
    ) -> NDArray[np.uint64]:
        """Return 64 random bits of some members for the update number to come."""
        iteration = (self._iteration[rows] + counts).astype(np.uint64)
        return _mix(self._key[rows] + iteration * _GOLDEN)

    def _evaluated(
        self,
        rows: slice | NDArray[np.int64],
        hashed: NDArray[np.uint64] | None = None,
    ) -> FloatArray:
        """Return the losses of some members as an evaluation shows them."""
        law = self._constants
        hashed = self._hash(rows) if hashed is None else hashed
        jitter = law.jitter * np.exp(law.jitter_exponent * self._log_rate[rows])
        jitter *= self._iteration[rows] > 0
        loss = np.maximum(self._loss[rows] + jitter * _normal(hashed), 0.0)
        finite = self._finite[rows]
        every = np.count_nonzero(finite) == len(finite)
        return loss if every else np.where(finite, loss, np.nan)

    def _check_rates(self, rates: FloatArray, counts: NDArray[np.int64]) -> None:
        if rates.shape != (self.size,):
            raise ValueError(
                f"learning_rate must have shape ({self.size},) or ({self.size}, n), "
                f"got {rates.shape}"
            )
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
            "loss": self._loss,
            "finite": self._finite,
        }


def _segments(
    counts: NDArray[np.int64], rates: FloatArray
) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    """Yield updates and their rate, of the first so many members, in their order.

    One segment for constant rates, (R,). Of (R, n), `SEGMENT` updates at a time at
    their mean rate; counts fall from the first member to the last.
    """
    if rates.ndim == 1:
        yield counts, rates
        return
    for start in range(0, int(counts[0]), SEGMENT):
        left = counts[: np.count_nonzero(counts > start)] - start
        lengths = np.minimum(left, SEGMENT)
        part = rates[: len(left), start : start + SEGMENT]
        yield lengths, part.sum(axis=1) / lengths


def _overlaid(old: FloatArray, new: FloatArray) -> FloatArray:
    """Return `new`, followed by what of `old` is beyond it."""
    if len(new) == len(old):
        return new
    return np.concatenate([new, old[len(new) :]])


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit integers, elementwise: the finalizer of SplitMix64."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def _normal(bits: NDArray[np.uint64]) -> FloatArray:
    """Return standard normal numbers, chosen by the highest bits."""
    return np.asarray(_NORMAL[bits >> _SHIFT])
