"""`SurrogateTrainer`: E simulated training runs from a fitted law of the loss curve.

The same protocol as `PopulationTrainer`, without a model or a text: millions of
decisions per second. Losses are what `loss_law.py` predicts, plus noise; the numbers
are as good as the law, within the rates and the run length that it was fitted on.
Random numbers are functions of a member's seed and iteration: the same member goes
through the same run in a population of any size, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
# What a random number is for: no two uses share one.
_EFFICIENCY, _TOLERANCE, _TRAIN, _VAL = (np.uint64(n) for n in range(4))


class SurrogateTrainer:
    """E simulated runs of one law, as `Trainer` describes.

    A member's seed draws how fast it learns and how high a rate it bears, from the
    law's spread over seeds, and the noise of its losses. A member whose rate exceeds
    its `divergence_rate` is frozen with a non-finite loss.
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
        self._finite = np.ones(size, dtype=np.bool_)
        self._telemetry = {
            name: np.zeros(size) for name in ("grad_norm", "update_ratio", "seconds")
        }
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
        efficiency = np.exp(law.efficiency_spread * _draw(key, 0, _EFFICIENCY))
        log_tolerance = law.tolerance_spread * _draw(key, 0, _TOLERANCE)
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
        for values in self._telemetry.values():
            values[rows] = 0.0

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
            counts, rates = (
                check_counts(iterations, self.size),
                np.asarray(learning_rate, dtype=np.float64),
            )
            self._check_rates(rates, counts)
            losses = self._run(counts, rates)
        else:
            counts, plan = check_chunk(iterations, learning_rate, self.size)
            losses = self._run_plan(counts, plan)
        if on_iteration is not None:
            for _ in range(int(counts.max())):
                on_iteration()
        self._telemetry["seconds"] += (counts > 0) * (time.perf_counter() - started)
        return losses

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss, the same however often; see `Trainer`.

        Args:
            members: Whose, (len(members),); `None` is everybody's, (E,).
        """
        law = self._constants
        rows = slice(None) if members is None else list(members)
        iteration = self._iteration[rows]
        jitter = law.jitter * np.exp(law.jitter_exponent * self._log_rate[rows])
        jitter *= iteration > 0  # untrained models hardly differ
        loss = self._loss[rows] + jitter * _draw(self._key[rows], iteration, _VAL)
        loss = np.maximum(loss, 0.0)
        finite = self._finite[rows]
        return loss if finite.all() else np.where(finite, loss, np.nan)

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members are frozen, (E,) bool."""
        return ~self._finite

    def snapshot(self, members: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Copy the rows of `members`: plain arrays, ready for safetensors."""
        rows = list(members)
        return {name: values[rows] for name, values in self._columns().items()}

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

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return a copy of all members' state, for `safetensors.numpy.save_file`."""
        return self.snapshot(range(self.size))

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state_dict`; raises ValueError where it does not fit."""
        self.restore(range(self.size), state)

    def telemetry(self) -> dict[str, FloatArray]:
        """Return what a training script would log, (E,) each.

        ``grad_norm`` and ``update_ratio`` are the law's log-linear models of what was
        recorded, without noise. ``tokens``: characters that a real run would have
        trained on. ``seconds``: wall time in `train`, shared by all members.
        """
        training = self.law.training
        per_iteration = training.batch_size * training.block_size
        tokens = np.asarray(self._iteration * float(per_iteration))
        return {**{k: v.copy() for k, v in self._telemetry.items()}, "tokens": tokens}

    # ------------------------------------------------------------------------ the runs

    @property
    def iteration(self) -> NDArray[np.int64]:
        """Updates spent by each member, (E,)."""
        return self._iteration.copy()

    def _run(self, counts: NDArray[np.int64], rates: FloatArray) -> FloatArray:
        """Advance members by `counts` updates each; return their train losses."""
        running = (counts > 0) & self._finite
        if running.all():
            return self._step(slice(None), counts, rates)
        losses = np.full(self.size, np.nan)
        rows = np.flatnonzero(running)
        if len(rows):
            losses[rows] = self._step(rows, counts[rows], rates[rows])
        frozen = ~self._finite
        self._iteration[frozen] += counts[frozen]
        return losses

    def _run_plan(self, counts: NDArray[np.int64], plan: FloatArray) -> FloatArray:
        """Advance members by segments of the plan; return mean train losses."""
        total, trained = np.zeros(self.size), np.zeros(self.size)
        for start in range(0, plan.shape[1], SEGMENT):
            part = plan[:, start : start + SEGMENT]
            length = np.minimum(np.maximum(counts - start, 0), part.shape[1])
            used = np.arange(part.shape[1]) < length[:, None]
            rates = np.where(used, part, 0.0).sum(axis=1) / np.maximum(length, 1)
            losses = self._run(length, rates)
            usable = np.isfinite(losses)
            total += np.where(usable, losses * length, 0.0)
            trained += usable * length
        return np.where(trained > 0, total / np.maximum(trained, 1), np.nan)

    def _step(
        self,
        rows: slice | NDArray[np.int64],
        counts: NDArray[np.int64],
        rates: FloatArray,
    ) -> FloatArray:
        """Advance some members at constant rates; return their mean train losses."""
        law = self._constants
        whole = isinstance(rows, slice)
        members = self._members if whole else self._members.take(rows)
        before: State = (
            self._state if whole else {k: v[rows] for k, v in self._state.items()}
        )
        log_rate = np.log(np.maximum(rates, LOWEST_RATE))
        after = advance(law, members, before, rates, counts)
        new_loss = validation_loss(law, after, log_rate)
        # Half way: a chunk's loss falls almost linearly once the first is over.
        loss = 0.5 * (self._loss[rows] + new_loss)
        if law.gap_scale:
            loss -= generalization_gap(law, after)
        normal = _draw(self._key[rows], self._iteration[rows], _TRAIN)
        loss += normal * (law.batch_noise / np.sqrt(counts))
        np.maximum(loss, 0.0, out=loss)
        if whole:
            self._state = after
        else:
            for name in STATE_NAMES:
                self._state[name][rows] = after[name]
        self._iteration[rows] += counts
        self._log_rate[rows] = log_rate
        self._loss[rows] = new_loss
        self._describe(rows, after, log_rate)
        limit = np.log(law.divergence_rate) + members.log_tolerance
        fatal = log_rate > limit
        if fatal.any():
            self._finite[rows] &= ~fatal
            loss = np.where(fatal, np.nan, loss)
        return loss

    def _describe(
        self, rows: slice | NDArray[np.int64], state: State, log_rate: FloatArray
    ) -> None:
        """Model what telemetry reports of the updates just made."""
        law = self._constants
        a, b, c, d = law.grad_norm
        progress = np.log(state["progress"] + law.progress_scale)
        self._telemetry["grad_norm"][rows] = np.exp(
            a + b * log_rate + c * progress - d * state["damage"]
        )
        a, b, c = law.update_ratio
        undamaged = np.log(state["undamaged"] + law.progress_scale)
        self._telemetry["update_ratio"][rows] = np.exp(a + b * log_rate + c * undamaged)

    def _check_rates(self, rates: FloatArray, counts: NDArray[np.int64]) -> None:
        if rates.shape != (self.size,):
            raise ValueError(
                f"learning_rate must have shape ({self.size},) or ({self.size}, n), "
                f"got {rates.shape}"
            )
        wrong = ~(np.isfinite(rates) & (rates >= 0.0))
        if wrong.any() and (wrong & (counts > 0)).any():
            raise ValueError(
                "learning_rate must be finite and not negative, got "
                f"{rates[wrong & (counts > 0)][0]!r}"
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


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit integers, elementwise: the finalizer of SplitMix64."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def _draw(
    key: NDArray[np.uint64], iteration: int | NDArray[np.int64], use: np.uint64
) -> FloatArray:
    """Return a standard normal number for each key, iteration and use."""
    counter = np.asarray(iteration).astype(np.uint64) * np.uint64(4) + use
    return np.asarray(_NORMAL[_mix(key + counter * _GOLDEN) >> _SHIFT])
