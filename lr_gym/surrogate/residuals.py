"""Estimates from recorded runs: noise, telemetry, generalization gap, divergence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lr_gym.surrogate.law import LawConstants, RunParams, generalization_gap
from lr_gym.surrogate.replay import Replay
from lr_gym.surrogate.runs import CURVES, RecordedRun, padded

FloatArray = NDArray[np.float64]

# A run has diverged above this multiple of its initial loss: the default of
# `MDPConfig.divergence_factor`.
DIVERGENCE_FACTOR = 3.0
_MIN_GAP = 0.01  # nats, at the largest progress of any run


def measure_gap(
    runs: Sequence[RecordedRun], replay: Replay, law: LawConstants, members: RunParams
) -> LawConstants:
    """Fit the gap between validation and training loss to the last half of each run.

    The gap is 0 if it is below `_MIN_GAP` everywhere.
    """
    points, losses, train_losses = (
        padded(runs, name) for name in ("iterations", "val_loss", "train_loss")
    )
    late = points[:, 1:] > _lengths(runs) / 2
    progress = replay.predict(law, members)[1]["progress"][:, 1:][late]
    chunk_mean = 0.5 * (losses[:, 1:] + losses[:, :-1])
    gap = (chunk_mean - train_losses[:, 1:])[late]
    usable = np.isfinite(gap) & (progress > 0)
    if not usable.any():
        return law
    scale, exponent = _power_law(progress[usable], gap[usable])
    if scale * progress.max() ** exponent < _MIN_GAP:
        scale, exponent = 0.0, 1.0
    return dataclasses.replace(law, gap_scale=scale, gap_exponent=exponent)


def _lengths(runs: Sequence[RecordedRun]) -> FloatArray:
    """Return the iteration of each run's last evaluation, (R, 1)."""
    return np.array([[float(run.iterations[-1])] for run in runs])


def _power_law(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Fit y = scale * x^exponent by least squares; return scale >= 0 and exponent."""
    best = (np.inf, 0.0, 1.0)
    for exponent in np.linspace(0.5, 4.0, 36):
        powers = x**exponent
        scale = max(0.0, float(powers @ y / (powers @ powers)))
        error = float(((y - scale * powers) ** 2).sum())
        best = min(best, (error, scale, float(exponent)))
    return best[1], best[2]


def has_diverged(run: RecordedRun) -> bool:
    """Return whether a run diverged, by the default rule of the environment."""
    ceiling = DIVERGENCE_FACTOR * run.val_loss[0]
    return not bool((run.val_loss <= ceiling).all())  # false for NaN too


def divergence_rate(runs: Sequence[RecordedRun]) -> float:
    """Estimate the learning rate above which runs diverge.

    It is the geometric mean of the highest peak of a surviving run and the lowest peak
    of a diverged one. If no run diverged, it is 10 times that highest peak. If a run
    diverged below that highest peak, it is the lowest peak of a diverged run.
    """
    peaks = {True: [np.inf], False: [0.0]}
    for run in runs:
        peaks[has_diverged(run)].append(float(run.rates.max()))
    lowest_diverged, highest_survived = min(peaks[True]), max(peaks[False])
    if not np.isfinite(lowest_diverged):
        return 10.0 * highest_survived
    if lowest_diverged <= highest_survived:
        return lowest_diverged
    return float(np.sqrt(highest_survived * lowest_diverged))


def describe_noise(
    runs: Sequence[RecordedRun], replay: Replay, law: LawConstants, members: RunParams
) -> LawConstants:
    """Fit the constants of noise and telemetry to the residuals of the law."""
    points = padded(runs, "iterations")
    measured = {name: padded(runs, name)[:, 1:] for name in CURVES}
    losses, states = replay.predict(law, members)
    progress, undamaged, damage = (
        states[name][:, 1:] for name in ("progress", "undamaged", "damage")
    )
    rate = np.ones_like(progress)  # of the last iteration
    for row, run in zip(rate, runs, strict=True):
        used = run.rates[np.asarray(run.iterations[1:]) - 1]
        row[: len(used)] = np.maximum(used, 1e-12)
    late = points[:, 1:] >= _lengths(runs) / 4

    # Consecutive evaluations share the error of the law, but not the noise.
    residual = measured["val_loss"] - losses[:, 1:]
    change = np.diff(residual, axis=1, prepend=np.nan) / np.sqrt(2.0)
    quiet = late & np.isfinite(change) & (change != 0.0) & (damage < 0.1)
    quiet &= rate > 1e-6
    log_rate = np.log(rate[quiet])
    # The mean of ln|z| over a standard normal z is -0.635.
    log_size = np.log(np.abs(change[quiet])) + 0.635
    jitter = (0.5, -50.0)
    if quiet.sum() > 2 and np.ptp(log_rate) > 0.0:
        jitter = np.polyfit(log_rate, log_size, 1)

    chunk_mean = 0.5 * (losses[:, 1:] + losses[:, :-1])
    gap = generalization_gap(law, states)[:, 1:]
    residual = measured["train_loss"] - (chunk_mean - gap)
    change = np.diff(residual, axis=1, prepend=np.nan) / np.sqrt(2.0)
    batch_noise = (change * np.sqrt(np.diff(points)))[late & np.isfinite(change)]

    ones = np.ones_like(rate)
    log_progress = np.log(progress + law.progress_scale)
    log_undamaged = np.log(undamaged + law.progress_scale)
    grad_norm_terms = [ones, np.log(rate), log_progress, -damage]
    update_size_terms = [ones, np.log(rate), log_undamaged]
    return dataclasses.replace(
        law,
        jitter=float(np.exp(jitter[1])),
        jitter_exponent=float(jitter[0]),
        batch_noise=float(batch_noise.std()) if len(batch_noise) else 0.0,
        grad_norm=_fit_log(measured["grad_norm"], grad_norm_terms),
        update_size=_fit_log(measured["update_size"], update_size_terms),
    )


def _fit_log(values: FloatArray, terms: list[FloatArray]) -> tuple[float, ...]:
    """Fit ln(values) by a weighted sum of `terms`; return the weights."""
    usable = np.isfinite(values) & (values > 0.0)
    if not usable.any():
        return (0.0,) * len(terms)
    matrix = np.stack([term[usable] for term in terms], axis=1)
    weights = np.linalg.lstsq(matrix, np.log(values[usable]), rcond=None)[0]
    return tuple(float(weight) for weight in weights)
