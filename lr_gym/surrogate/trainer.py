"""`SurrogateTrainer`: E simulated training runs from a fitted law of the loss curve.

It has the protocol of `PopulationTrainer` but needs no model and no text, and makes
more than a million decisions per second. Losses are those of `law.py` plus noise. They
are as accurate as the law, within the learning rates and the run length it was fitted
to. Random numbers are functions of a member's seed and iteration, so that a member
gives the same bits in a population of any size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.hashing import hashed, normal, second_normal, splitmix64
from lr_gym.surrogate.chunk import (
    add_batch_noise,
    add_evaluation_noise,
    expected_norms,
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
    """E simulated runs of one law; a `Trainer`.

    A member's seed determines its efficiency and tolerance, from the law's spreads over
    seeds, and the noise of its losses. A member with a learning rate above
    `divergence_rate` is frozen with a non-finite loss.
    """

    def __init__(self, law: LossLaw, size: int = 1) -> None:
        """Prepare the population; every member starts as a run of seed 0.

        Args:
            law: The law of the runs.
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
        self._log_rate = np.zeros(size)  # ln of the last update's learning rate
        self._learning_rate = np.zeros(size)  # of the last update; 0 before any
        self._loss = np.zeros(size)  # validation loss without noise
        self._measured = np.zeros(size)  # validation loss with noise
        self._finite = np.ones(size, dtype=np.bool_)
        self._seconds = np.zeros(size)
        self.reset(range(size), [0] * size)

    # ---------------------------------------------------------------- the protocol

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start fresh runs for `members`, one seed each; see `Trainer.reset`."""
        if len(members) != len(seeds):
            raise ValueError(f"got {len(members)} members but {len(seeds)} seeds")
        law = self._constants
        rows = list(members)
        # Hash the seed first, so that consecutive seeds have unrelated streams.
        one = np.uint64(1)
        key = splitmix64(hashed(np.array(seeds, dtype=np.uint64), one))
        bits = hashed(key - one, one)
        efficiency = np.exp(law.efficiency_spread * normal(bits))
        log_tolerance = law.tolerance_spread * second_normal(bits)
        fresh = initial_state(law, RunParams(efficiency, log_tolerance))
        for name, values in fresh.items():
            self._state[name][rows] = values
        self._key[rows] = key
        self._members.efficiency[rows] = efficiency
        self._members.log_tolerance[rows] = log_tolerance
        self._iteration[rows] = 0
        self._log_rate[rows] = fresh["tolerance"]
        self._learning_rate[rows] = 0.0
        self._loss[rows] = validation_loss(law, fresh, fresh["tolerance"])
        self._finite[rows] = True
        self._seconds[rows] = 0.0
        self._measured[rows] = self._loss[rows]  # no noise: untrained models are alike

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train each member; see `Trainer.train`.

        A chunk with a constant learning rate is one step of the law. A varying learning
        rate is averaged over `SEGMENT` updates at a time.

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
        self._seconds += (counts > 0) * elapsed
        return losses

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss; repeated calls return the same. See `Trainer`.

        Args:
            members: Members to evaluate; `None` is all.

        Returns:
            (len(members),), nats per character.
        """
        measured = self._measured
        return measured.copy() if members is None else measured.take(members)

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members are frozen, (E,) bool."""
        return ~self._finite

    def snapshot(self, members: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Copy the state of `members`: arrays by name, ready for safetensors."""
        rows = np.array(members, dtype=np.int64)
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
            ValueError: A name is missing in `state`, or a shape differs.
        """
        rows = list(members)
        columns = self._columns()
        for name in columns:
            shape = np.shape(state[name]) if name in state else None
            if shape != (len(rows),):
                raise ValueError(
                    f"state[{name!r}] must have shape ({len(rows)},), got {shape}"
                )
        for name, values in columns.items():
            if rewind or name != "iteration":
                values[rows] = state[name]
        bits = hashed(self._key[rows], self._iteration[rows].astype(np.uint64))
        loss = self._loss[rows]
        measured = add_evaluation_noise(
            self._constants, loss, self._log_rate[rows], bits
        )
        measured = np.where(self._iteration[rows] > 0, measured, loss)
        self._measured[rows] = np.where(self._finite[rows], measured, np.nan)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return a copy of all members' state, for `safetensors.numpy.save_file`."""
        return self.snapshot(range(self.size))

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `state_dict`; see `restore` for the errors."""
        self.restore(range(self.size), state)

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return what a training script would log, (E,) each; see `Trainer`.

        ``grad_norm`` and ``update_size`` are the law's log-linear models of what was
        recorded, without noise. ``tokens``: characters that a real run would have
        trained on. ``seconds``: wall time in `train`, shared by all members.
        ``learning_rate``: that of the last simulated update.
        """
        telemetry: dict[str, FloatArray] = {}
        if names is None or "learning_rate" in names:
            telemetry["learning_rate"] = self._learning_rate.copy()
        if names is None or "tokens" in names:
            telemetry["tokens"] = self._iteration * self._tokens_per_update
        if names is None or "seconds" in names:
            telemetry["seconds"] = self._seconds.copy()
        if names is None or "grad_norm" in names or "update_size" in names:
            grad_norm, update_size = expected_norms(
                self._constants, self._state, self._log_rate
            )
            trained = self._iteration > 0
            telemetry["grad_norm"] = trained * grad_norm
            telemetry["update_size"] = trained * update_size
        return telemetry

    # ------------------------------------------------------------------------ the runs

    @property
    def iteration(self) -> NDArray[np.int64]:
        """Iterations spent by each member, (E,)."""
        return self._iteration.copy()

    def _run_plan(self, counts: NDArray[np.int64], plan: FloatArray) -> FloatArray:
        """Train on one learning rate per update, (E, n); return the train losses, (E,).

        Members with a constant learning rate take one step of the law, the others one
        per segment. So a member's results do not depend on other members.
        """
        if not plan.shape[1]:  # no member makes an update
            return np.full(self.size, np.nan)
        within = np.arange(plan.shape[1]) < counts[:, None]
        varies = ((plan != plan[:, :1]) & within).any(axis=1)
        losses = self._run(slice(None), np.where(varies, 0, counts), plan[:, 0])
        rows = np.flatnonzero(varies)
        if len(rows):
            # `segments` needs the members with most updates first.
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
        """Train some members; return their mean training losses, (R,).

        Args:
            rows: Indices of R members.
            counts: Updates of each, (R,).
            rates: Learning rates, (R,) or (R, n); see `segments`.
        """
        finite = self._finite[rows]
        running = (counts > 0) & finite
        if np.count_nonzero(running) == len(running):
            return self._learn(rows, counts, rates)
        losses = np.full(len(counts), np.nan)
        self._iteration[rows] += counts * ~finite  # frozen members spend updates too
        active = np.flatnonzero(running)
        if len(active):
            members = active if isinstance(rows, slice) else rows[active]
            losses[active] = self._learn(members, counts[active], rates[active])
        return losses

    def _learn(
        self,
        rows: slice | NDArray[np.int64],
        counts: NDArray[np.int64],
        rates: FloatArray,
    ) -> FloatArray:
        """Train members that have not diverged; see `_run`."""
        law = self._constants
        last = rates if rates.ndim == 1 else rates[np.arange(len(counts)), counts - 1]
        self._learning_rate[rows] = last
        members = self._members.select(rows)
        state: State = {name: values[rows] for name, values in self._state.items()}
        loss = self._loss[rows]
        total, log_rate, highest = np.zeros((3, len(counts)))
        for lengths, rate in segments(counts, rates):
            active = slice(len(lengths))
            highest[active] = np.maximum(highest[active], rate)
            before = {name: values[active] for name, values in state.items()}
            after, log_rate[active], loss_after, train_loss = train_segment(
                law, members.select(active), before, loss[active], rate, lengths
            )
            total[active] += train_loss * lengths
            loss = update_prefix(loss, loss_after)
            state = {
                name: update_prefix(state[name], after[name]) for name in STATE_NAMES
            }
        for name in STATE_NAMES:
            self._state[name][rows] = state[name]
        self._iteration[rows] += counts
        self._loss[rows] = loss
        self._log_rate[rows] = log_rate
        bits = hashed(self._key[rows], self._iteration[rows].astype(np.uint64))
        diverged = highest > law.divergence_rate
        self._finite[rows] = ~diverged
        measured = add_evaluation_noise(law, loss, log_rate, bits)
        self._measured[rows] = np.where(diverged, np.nan, measured)
        mean = add_batch_noise(law, total / counts, counts, bits)
        return np.where(diverged, np.nan, mean)

    def _check_rates(self, rates: FloatArray, counts: NDArray[np.int64]) -> None:
        if rates.shape != (self.size,):
            raise ValueError(
                f"learning_rate must have shape ({self.size},) or ({self.size}, n), "
                f"got {rates.shape}"
            )
        valid = (rates >= 0.0) & (rates < np.inf)  # false for NaN
        wrong = ~valid & (counts > 0)
        if wrong.any():
            raise ValueError(
                "learning_rate must be finite and not negative, got "
                f"{rates[wrong][0]!r}"
            )

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Return all state that later results depend on, by name."""
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
