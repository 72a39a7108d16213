"""The real runs that a law of the loss curve is fitted to and tested on.

A run is planned as its learning rates, one per iteration. `fitting_plan` and
`held_out_plan` return the plans. `collect` trains them as members of one population and
records the curves. This module does not depend on a law.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lr_gym import Corpus, MDPConfig, PopulationTrainer, TrainingConfig
from lr_gym.mdp.decisions import decision_points
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.runs import RecordedRun
from lr_gym.trainers.base import FloatArray

# Multiples of the scale's learning rate, which is near the best constant one.
FIT_PEAKS = (0.1, 1 / 3, 1.0, 10 / 3)
HELD_OUT_PEAKS = (1 / 6, 0.4, 0.8, 5 / 3)  # from lowest to highest a factor of 10
FIT_SCHEDULES = ("constant", "cosine", "step", "wsd")
HELD_OUT_SCHEDULES = ("wsd_linear", "linear", "one_cycle")
HIGH_PEAKS = (8.0, 30.0, 80.0)  # these damage a run
DIVERGING_PEAKS = (250.0, 2_500.0)
JUMPS = (3.0, 10.0, 30.0, 0.1)  # factors on the current learning rate
N_WALKS = 10
FIRST_HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True)
class Plan:
    """One run to train: its name, its seed, and a learning rate per iteration, (n,)."""

    name: str
    seed: int
    rates: FloatArray


def scheduled(config: TrainingConfig, schedule: str, peak: float) -> FloatArray:
    """Return the learning rates of a schedule with warm-up, (max_iters,)."""
    factors = schedule_factor(
        schedule, np.arange(config.max_iters), config.max_iters, config.warmup_iters
    )
    return np.asarray(peak * factors)


def random_walk(
    config: TrainingConfig, start: float, random: np.random.Generator
) -> FloatArray:
    """Return the learning rates of random actions: halve, keep or double.

    The walk stays between 1/30 and 10 times the learning rate of `config`.
    """
    decisions = -(-config.max_iters // config.eval_interval)
    low, high = config.learning_rate / 30, config.learning_rate * 10
    rate, chunks = start, []
    for _ in range(decisions):
        rate = float(np.clip(rate * random.choice([0.5, 1.0, 2.0]), low, high))
        chunks.append(np.full(config.eval_interval, rate))
    walk = np.concatenate(chunks)[: config.max_iters]
    return np.asarray(walk * scheduled(config, "constant", 1.0))


def jump(
    config: TrainingConfig, base: float, factor: float, when: float, share: float
) -> FloatArray:
    """Return a constant LR that is multiplied by `factor` for a `share` of the run."""
    rates = scheduled(config, "constant", base)
    start = round(when * config.max_iters)
    rates[start : start + round(share * config.max_iters)] *= factor
    return rates


def fitting_plan(config: TrainingConfig) -> list[Plan]:
    """Return the runs to fit, the most informative first."""
    reference_lr = config.learning_rate
    rows = [
        (
            f"{schedule} at {peak * reference_lr:.2g}",
            scheduled(config, schedule, peak * reference_lr),
        )
        for peak in FIT_PEAKS
        for schedule in FIT_SCHEDULES
    ]
    random = np.random.default_rng(0)
    for index in range(N_WALKS):
        start = reference_lr * 10 ** random.uniform(-1.0, 0.6)
        rows.append((f"walk {index}", random_walk(config, start, random)))
    rows += _jumps(config)
    rows += [
        (
            f"{schedule} at {peak * reference_lr:.2g}",
            scheduled(config, schedule, peak * reference_lr),
        )
        for peak in HIGH_PEAKS
        for schedule in ("constant", "wsd")
    ]
    # Exponential ramps from far below until the run diverges.
    for factor in (1.3, 1.6):
        steps = np.arange(config.max_iters) // 10
        ramp = np.minimum(reference_lr / 30 * factor**steps, reference_lr * 30)
        rows.append((f"ramp x{factor:g}", ramp))
    for peak in (1.0, 10 / 3):
        cold = np.full(config.max_iters, peak * reference_lr)
        rows.append((f"cold {peak * reference_lr:.2g}", cold))
    rows += [
        (
            f"constant at {peak * reference_lr:.2g}",
            scheduled(config, "constant", peak * reference_lr),
        )
        for peak in DIVERGING_PEAKS
    ]
    return [Plan(name, seed, rates) for seed, (name, rates) in enumerate(rows)]


def _jumps(config: TrainingConfig) -> list[tuple[str, FloatArray]]:
    rows = []
    for base in (1 / 3, 1.0):
        rate = base * config.learning_rate
        for factor in JUMPS:
            lasting = jump(config, rate, factor, 0.25, 1.0)
            short = jump(config, rate, factor, 0.5, 0.05)
            rows.append((f"jump {rate:.2g} x{factor:g}", lasting))
            rows.append((f"pulse {rate:.2g} x{factor:g}", short))
    return rows


def held_out_plan(config: TrainingConfig) -> list[Plan]:
    """Return the held-out runs: other schedules, peaks, walks and seeds."""
    reference_lr = config.learning_rate
    random = np.random.default_rng(1)
    rows = []
    for peak in HELD_OUT_PEAKS:
        for schedule in HELD_OUT_SCHEDULES:
            rates = scheduled(config, schedule, peak * reference_lr)
            rows.append((f"{schedule} at {peak * reference_lr:.2g}", rates))
        walk = random_walk(config, peak * reference_lr, random)
        rows.append((f"walk from {peak * reference_lr:.2g}", walk))
    return [
        Plan(name, FIRST_HELD_OUT_SEED + index, rates)
        for index, (name, rates) in enumerate(rows)
    ]


def collect(
    config: TrainingConfig,
    corpus: Corpus,
    plans: list[Plan],
    *,
    size: int = 8,
    progress: Callable[[int], object] | None = None,
) -> Iterator[RecordedRun]:
    """Train the planned runs; yield their curves.

    Evaluations are dense over the first quarter, where damage occurs, then one per
    `eval_interval`.

    Args:
        config: The training of every run.
        corpus: The text.
        plans: The runs.
        size: Runs that train as one population.
        progress: Called with the number of updates, after every chunk.
    """
    dense = MDPConfig(decision_spacing="dense_start")
    points = decision_points(dense, config.max_iters, config.eval_interval)
    for first in range(0, len(plans), size):
        group = plans[first : first + size]
        trainer = PopulationTrainer(config, corpus, len(group))
        trainer.reset(range(len(group)), [plan.seed for plan in group])
        rates = np.stack([plan.rates for plan in group])  # (E, n)
        curves = [_measure(trainer, np.full(len(group), np.nan))]
        start = 0
        for stop in points:
            train_loss = trainer.train(int(stop - start), rates[:, start:stop])
            curves.append(_measure(trainer, train_loss))
            if progress is not None:
                progress(int(stop - start) * len(group))
            start = int(stop)
        table = np.stack(curves, axis=2)  # (4, E, m)
        for member, plan in enumerate(group):
            yield RecordedRun(
                name=plan.name,
                seed=plan.seed,
                rates=plan.rates,
                iterations=np.concatenate([[0], points]),
                **dict(zip(_MEASURED, table[:, member], strict=True)),
            )


_MEASURED = ("val_loss", "train_loss", "grad_norm", "update_size")


def _measure(trainer: PopulationTrainer, train_loss: FloatArray) -> FloatArray:
    """Return the values of `_MEASURED`, (4, E); NaN for diverged members."""
    telemetry = trainer.telemetry()
    rows = np.stack(
        [
            trainer.evaluate(),
            train_loss,
            telemetry["grad_norm"],
            telemetry["update_size"],
        ]
    )
    return np.where(trainer.diverged(), np.nan, rows)
