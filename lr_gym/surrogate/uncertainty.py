"""How far a law may be off: fits without some of the runs, and their errors on those.

The runs are divided into folds. The law is fitted again without each fold, and predicts
the fold's final losses. Errors are in units of their expected standard deviation, from
three sources: the fits differ, seeds differ, and an evaluation is noisy. Quantiles of
these errors scale the intervals of later predictions, as in conformal prediction
(Barber et al. 2021, arXiv 1905.02928).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lr_gym.surrogate.law import (
    LOWEST_RATE,
    FloatArray,
    LawConstants,
    LossLaw,
    RunParams,
)
from lr_gym.surrogate.replay import Replay, replay_runs
from lr_gym.surrogate.runs import RecordedRun, padded
from lr_gym.validation import check_real

SEED_SAMPLES = 64  # simulated seeds per run
Fit = Callable[[list[RecordedRun]], LawConstants]


class Interval(NamedTuple):
    """Losses at the runs' evaluations, (R, m) each; NaN where a run has ended."""

    low: FloatArray
    middle: FloatArray
    high: FloatArray


def cross_validate(
    runs: Sequence[RecordedRun], law: LawConstants, fit: Fit, folds: int
) -> tuple[tuple[LawConstants, ...], tuple[float, ...]]:
    """Fit without each fold; return the fits, and the errors on the folds, sorted.

    Args:
        runs: Recorded runs that did not diverge; run number i is in fold i modulo
            `folds`.
        law: The fit to all of them.
        fit: Fits some of them.
        folds: At least 2.
    """
    parts = [list(runs[number::folds]) for number in range(folds)]
    laws = [fit([run for run in runs if run not in part]) for part in parts]
    errors: list[float] = []
    for part, without in zip(parts, laws, strict=True):
        replay = replay_runs(part)
        error = np.abs(replay.predict(without)[0] - padded(part, "val_loss"))
        scaled = error / deviations(law, laws, replay)
        errors += [
            float(row[len(run.iterations) - 1])
            for row, run in zip(scaled, part, strict=True)
        ]
    return tuple(laws), tuple(sorted(errors))


def deviations(
    law: LawConstants, laws: Sequence[LawConstants], replay: Replay
) -> FloatArray:
    """Return the expected standard deviation of each loss, (R, m)."""
    fits = np.stack([replay.predict(other)[0] for other in laws])
    # The fits share most of their runs: the jackknife's factor.
    of_law = (len(laws) - 1.0) * fits.var(axis=0)
    random = np.random.default_rng(0)
    shape = (SEED_SAMPLES, replay.runs)
    members = RunParams(
        np.exp(law.efficiency_spread * random.standard_normal(shape)),
        law.tolerance_spread * random.standard_normal(shape),
    )
    of_seed = replay.predict(law, members)[0].var(axis=0)
    rates = np.maximum(replay.last_rates(), LOWEST_RATE)
    of_evaluation = (law.jitter * rates**law.jitter_exponent) ** 2
    return np.asarray(np.sqrt(of_law + of_seed + of_evaluation))


def predict_interval(
    law: LossLaw, runs: Sequence[RecordedRun], coverage: float = 0.9
) -> Interval:
    """Return where the losses of fresh runs lie with a probability of `coverage`.

    The middle is the law's prediction for an average seed.

    Args:
        law: From `fit_surrogate` with `folds`.
        runs: Their learning rates and evaluations count, not their losses.
        coverage: Above 0 and below 1.

    Raises:
        ValueError: `coverage` is out of range, or the law was fitted without folds.
    """
    check_real("coverage", coverage, 0.0, 1.0, low_open=True, high_open=True)
    if not law.ensemble:
        raise ValueError("the law has no ensemble: fit it with fit_surrogate(folds=10)")
    replay = replay_runs(runs)
    middle = replay.predict(law.constants)[0]
    factor = np.quantile(law.errors, coverage, method="higher")
    margin = factor * deviations(law.constants, law.ensemble, replay)
    return Interval(middle - margin, middle, middle + margin)
