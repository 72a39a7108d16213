"""`fit_surrogate`: fits a `LossLaw` to recorded runs by nonlinear least squares.

Seeds differ, so each run has its own efficiency and tolerance. They are fitted with the
constants, under a normal prior. Their standard deviations become the law's spreads.
Needs SciPy and threadpoolctl: ``pip install 'lr-gym[surrogate]'``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.config import TrainingConfig
from lr_gym.surrogate.curve_fitting import MIN_CURVES, fit_curves
from lr_gym.surrogate.law import LawConstants, LossLaw, RunParams
from lr_gym.surrogate.replay import replay_runs
from lr_gym.surrogate.residuals import (
    describe_noise,
    divergence_rate,
    has_diverged,
    measure_gap,
)
from lr_gym.surrogate.runs import RecordedRun, have_same_points
from lr_gym.surrogate.search import LOSSES, Fit, Problem, Range, one_thread
from lr_gym.surrogate.uncertainty import cross_validate
from lr_gym.validation import check_integer

FloatArray = NDArray[np.float64]

MAX_DAMAGE = 0.2  # runs with less damage count as undamaged
MIN_RUNS = 8
MAX_PASSES = 3  # through the starting points
MIN_IMPROVEMENT = 0.01  # fraction of the cost; a pass that saves less is the last

RESIDUAL_SCALE = 0.03  # nats: the cost of larger residuals grows linearly
# Weights of evaluations before a fraction of the run; the end matters most.
EARLY_WEIGHTS = ((0.1, 0.15), (0.25, 0.4))
FINAL_WEIGHT = 4.0

# Of each constant: start, lower and upper bound, and whether the scale is logarithmic.
# Losses are in units of the initial loss.
_FITTED: dict[str, Range] = {
    "floor": (0.1, 0.0, 0.8, False),
    "amplitude": (0.5, 0.05, 1.0, False),
    "plateau": (0.78, 0.3, 0.9, False),
    "exponent": (0.25, 0.03, 2.0, False),
    "progress_scale": (0.3, 1e-5, 10.0, True),
    "early_scale": (0.025, 1e-3, 1.0, True),
    "saturation_rate": (0.0022, 1e-4, 1.0, True),
    "noise_loss": (0.02, 1e-5, 1.0, True),
    "noise_rate": (0.0002, 1e-4, 1.0, True),
    "noise_onset": (0.7, 1e-5, 10.0, True),
    "noise_decay_rate": (0.25, 0.05, 1e4, True),
    "noise_clock_exponent": (0.2, 0.0, 1.0, False),
    "overshoot": (1.0, 0.0, 5.0, False),
    "overshoot_pace": (0.008, 2e-3, 0.5, True),
    "tolerance": (0.0006, 1e-4, 1.0, True),
    "tolerance_pace": (0.02, 0.015, 0.04, True),
    "max_log_lr_jump": (1.8, 0.2, 6.0, False),
    "damage_rate": (0.06, 1e-4, 10.0, True),
    "forgetting": (1.0, 0.0, 5.0, False),
}
_DAMAGE = (
    "plateau",
    "tolerance",
    "tolerance_pace",
    "max_log_lr_jump",
    "damage_rate",
    "forgetting",
)
_LEARNING = (
    "floor",
    "amplitude",
    "exponent",
    "progress_scale",
    "early_scale",
    "saturation_rate",
)
_NOISE = tuple(name for name in _FITTED if name.startswith(("noise", "overshoot")))
_LITTLE_NOISE: dict[str, Any] = {"noise_rate": 1.5e-4, "noise_onset": 0.01}
# Little damage at usual learning rates: another starting point for undamaged runs.
_LITTLE_DAMAGE: dict[str, Any] = {
    "tolerance": 0.004,
    "tolerance_pace": 0.02,
    "max_log_lr_jump": 0.25,
    "damage_rate": 0.05,
    "forgetting": 1.0,
}
# Fitted only if there is a generalization gap.
_GAP_SHARE: dict[str, Range] = {"gap_share": (0.1, 0.0, 1.0, False)}


def fit_surrogate(
    runs: Sequence[RecordedRun],
    training: TrainingConfig,
    *,
    entropy_rate: float | None = None,
    folds: int = 0,
) -> LossLaw:
    """Fit a law of the loss curve to recorded runs.

    The runs should include constant, cosine, step and WSD schedules at three or more
    peak learning rates that span a factor of ten, some random actions, and some jumps
    of the learning rate up and down. ``benchmarks.surrogate.fitting`` collects such
    runs. The law interpolates between them; outside their range it extrapolates.

    Fewer runs than 8, or runs of different lengths, are fitted by `fit_curves`: the law
    then knows nothing of damage.

    Args:
        runs: At least 3.
        training: Configuration that the runs share.
        entropy_rate: A known lower bound of the loss on the corpus, nats per character.
        folds: Fit as many times more, each time without a part of the runs, so that
            `predict_interval` knows how far the law may be off; 0 does not. Each fit
            takes about a tenth of the first one.

    Raises:
        ImportError: SciPy or threadpoolctl is missing.
        ValueError: There are too few runs, or `folds` does not fit them.
    """
    check_integer("the number of runs", len(runs), MIN_CURVES)
    check_integer("folds", folds, 0, max(0, len(runs) - MIN_RUNS))
    if folds == 1:
        raise ValueError("folds must be 0, or 2 and more; got 1")
    survivors = [run for run in runs if not has_diverged(run)]
    least = "the number of runs that did not diverge"
    check_integer(least, len(survivors), MIN_CURVES)
    many = len(survivors) >= MIN_RUNS and have_same_points(survivors)
    with one_thread():
        constants, members = _fit(survivors) if many else fit_curves(survivors)
    constants = dataclasses.replace(constants, divergence_rate=divergence_rate(runs))
    replay = replay_runs(survivors)
    constants = describe_noise(survivors, replay, constants, members)
    ensemble: tuple[LawConstants, ...] = ()
    errors: tuple[float, ...] = ()
    if folds:
        with one_thread():
            ensemble, errors = cross_validate(
                survivors, constants, partial(refit, constants), folds
            )
    peaks = [float(run.rates.max()) for run in survivors]
    return LossLaw(
        training=training,
        constants=constants,
        entropy_rate=entropy_rate,
        lowest_rate=min(peaks),
        highest_rate=max(peaks),
        runs=len(runs),
        ensemble=ensemble,
        errors=errors,
    )


def refit(law: LawConstants, runs: Sequence[RecordedRun]) -> LawConstants:
    """Return the constants that fit some of the runs of `law`, near its own."""
    damage = replay_runs(runs).predict(law)[1]["damage"][:, -1]
    undamaged = [runs[run] for run in np.flatnonzero(damage < MAX_DAMAGE)]
    if len(undamaged) >= MIN_RUNS:
        fitted = _FITTED | (_GAP_SHARE if law.gap_scale > 0.0 else {})
        law = _problem(undamaged, law, fitted).search().law
    return _fit_damage(runs, law, {name: getattr(law, name) for name in _DAMAGE}).law


def _fit(runs: Sequence[RecordedRun]) -> tuple[LawConstants, RunParams]:
    """Return the constants of the dynamics, and the parameters of each run.

    Fit all constants to all runs first, roughly. Then fit them to the undamaged runs,
    and last the constants of damage to all runs. Several sets of constants fit the
    undamaged runs almost equally well, but only some fit the damaged runs too. So the
    last two fits repeat from several starting points, and the lowest total cost wins.
    """
    initial_loss = float(np.mean([run.val_loss[0] for run in runs]))
    defaults: dict[str, Any] = {
        name: start * (initial_loss if name in LOSSES else 1.0)
        for name, (start, *_) in _FITTED.items()
    }
    law = LawConstants(initial_loss=initial_loss, divergence_rate=np.inf, **defaults)
    law, members, _ = _problem(runs, law, _FITTED).search()
    states = replay_runs(runs).predict(law, members)[1]
    damage = states["damage"][:, -1]
    undamaged = [runs[run] for run in np.flatnonzero(damage < MAX_DAMAGE)]
    if len(undamaged) < MIN_RUNS:
        law, members, _ = _fit_damage(runs, law, defaults)
        return law, members
    law, members, _ = _problem(undamaged, law, _FITTED).search()
    law = measure_gap(undamaged, replay_runs(undamaged), law, members)
    fitted = _FITTED | (_GAP_SHARE if law.gap_scale > 0.0 else {})
    best = Fit(law, members, np.inf)
    for _ in range(MAX_PASSES):
        before = best
        for start in _starting_points(before.law, defaults):
            learning = _problem(undamaged, start, fitted).search()
            whole = _fit_damage(runs, learning.law, defaults)
            whole = whole._replace(cost=learning.cost + whole.cost)
            best = min(best, whole, key=lambda fit: fit.cost)
        if best.cost > (1.0 - MIN_IMPROVEMENT) * before.cost:
            break
    return best.law, best.members


def _problem(
    runs: Sequence[RecordedRun], law: LawConstants, fitted: Mapping[str, Range]
) -> Problem:
    """Return the search, with more weight on the end of the runs."""
    points = np.asarray(runs[0].iterations)
    progress = points / points[-1]
    weights = np.ones(len(progress))
    for fraction, weight in reversed(EARLY_WEIGHTS):
        weights[progress < fraction] = weight
    weights[0] = 0.0
    weights[-1] = FINAL_WEIGHT
    return Problem(
        runs, replay_runs(runs), law, fitted, weights=weights / RESIDUAL_SCALE
    )


def _starting_points(law: LawConstants, defaults: dict[str, Any]) -> list[LawConstants]:
    """Return starting points for the fit to undamaged runs.

    Noise, slow learning and slight damage can explain the same losses. Each starting
    point resets the constants of one of them.
    """
    noise = {name: defaults[name] for name in _NOISE}
    learning = {name: defaults[name] for name in _LEARNING}
    little_noise = {"noise_loss": 0.3 * defaults["noise_loss"], **_LITTLE_NOISE}
    changes: tuple[dict[str, Any], ...] = (
        {},
        noise,
        learning,
        defaults,
        little_noise,
        _LITTLE_DAMAGE,
    )
    return [dataclasses.replace(law, **change) for change in changes]


def _fit_damage(
    runs: Sequence[RecordedRun], law: LawConstants, defaults: dict[str, Any]
) -> Fit:
    """Fit the constants of damage to all runs; keep the others of `law`."""
    start = dataclasses.replace(law, **{name: defaults[name] for name in _DAMAGE})
    fit = _problem(runs, start, {name: _FITTED[name] for name in _DAMAGE}).search()
    # Damaged runs say little about the efficiency of a seed: keep its spread.
    spread = law.efficiency_spread
    return fit._replace(law=dataclasses.replace(fit.law, efficiency_spread=spread))
