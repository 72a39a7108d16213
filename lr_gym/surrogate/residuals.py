"""What recorded runs show beside loss curves: noise, telemetry, gap, divergence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lr_gym.surrogate.law import LawConstants, RunParams, generalization_gap, predict
from lr_gym.surrogate.runs import CURVES, RecordedRun, undone_chunks

FloatArray = NDArray[np.float64]

EXPLODED = 3.0  # times the initial loss: the environment's divergence_factor
_LEAST_GAP = 0.01  # nats, at the end of the run that has learned most


def measure_gap(
    runs: Sequence[RecordedRun], law: LawConstants, members: RunParams
) -> LawConstants:
    """Return the law with the gap between validation and training loss.

    It is fitted to the runs' last halves. Where it is too small to tell, there is none.
    """
    rates = np.stack([run.rates for run in runs])
    points = np.asarray(runs[0].iterations)
    losses = np.stack([run.val_loss for run in runs])
    train_losses = np.stack([run.train_loss for run in runs])
    states = predict(law, rates, points, members, undone_chunks(runs))[1]
    late = points[1:] > points[-1] / 2
    progress = np.stack([s["progress"] for s in states], axis=1)[:, 1:][:, late]
    between = 0.5 * (losses[:, 1:] + losses[:, :-1])
    gap = (between - train_losses[:, 1:])[:, late]
    usable = np.isfinite(gap) & (progress > 0)
    scale, exponent = _power_law(progress[usable], gap[usable])
    if scale * progress.max() ** exponent < _LEAST_GAP:
        scale, exponent = 0.0, 1.0
    return dataclasses.replace(law, gap_scale=scale, gap_exponent=exponent)


def _power_law(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Return scale >= 0 and exponent of y = scale * x^exponent, by least squares."""
    best = (np.inf, 0.0, 1.0)
    for exponent in np.linspace(0.5, 4.0, 36):
        powers = x**exponent
        scale = max(0.0, float(powers @ y / (powers @ powers)))
        error = float(((y - scale * powers) ** 2).sum())
        best = min(best, (error, scale, float(exponent)))
    return best[1], best[2]


def exploded(run: RecordedRun) -> bool:
    """Return whether a run diverged, as the environment defines it by default."""
    ceiling = EXPLODED * run.val_loss[0]
    return not bool((run.val_loss <= ceiling).all())  # false for NaN too


def divergence_rate(runs: Sequence[RecordedRun]) -> float:
    """Return the rate between the highest that a run survived and the lowest fatal.

    Without a diverged run: ten times the highest one.
    """
    peaks = {True: [np.inf], False: [0.0]}
    for run in runs:
        peaks[exploded(run)].append(float(run.rates.max()))
    fatal, survived = min(peaks[True]), max(peaks[False])
    if not np.isfinite(fatal):
        return 10.0 * survived
    return float(np.sqrt(survived * fatal)) if fatal > survived else fatal


def describe_noise(
    runs: Sequence[RecordedRun], law: LawConstants, members: RunParams
) -> LawConstants:
    """Return the constants with those of noise and telemetry, fitted to residuals."""
    rates = np.stack([run.rates for run in runs])
    points = np.asarray(runs[0].iterations)
    measured = {
        name: np.stack([getattr(run, name) for run in runs])[:, 1:] for name in CURVES
    }
    losses, states = predict(law, rates, points, members, undone_chunks(runs))
    progress, undamaged, damage = (
        np.stack([state[name] for state in states], axis=1)[:, 1:]
        for name in ("progress", "undamaged", "damage")
    )
    rate = np.maximum(rates[:, points[1:] - 1], 1e-12)  # (R, m - 1)
    late = np.broadcast_to(points[1:] >= points[-1] / 4, rate.shape)

    # Two evaluations in a row share what the law gets wrong about a run, not the noise.
    residual = measured["val_loss"] - losses[:, 1:]
    change = np.diff(residual, axis=1, prepend=np.nan) / np.sqrt(2.0)
    quiet = late & np.isfinite(change) & (change != 0.0) & (damage < 0.1)
    quiet &= rate > 1e-6
    log_rate = np.log(rate[quiet])
    # The mean of ln|z| over a standard normal z is -0.635.
    log_size = np.log(np.abs(change[quiet])) + 0.635
    jitter = np.polyfit(log_rate, log_size, 1) if quiet.sum() > 2 else (0.5, -50.0)

    between = 0.5 * (losses[:, 1:] + losses[:, :-1])
    gap = np.stack([generalization_gap(law, s) for s in states], axis=1)[:, 1:]
    batch = measured["train_loss"] - (between - gap)
    change = np.diff(batch, axis=1, prepend=np.nan) / np.sqrt(2.0)
    scatter = (change * np.sqrt(np.diff(points)))[late & np.isfinite(change)]

    ones = np.ones_like(rate)
    log_progress = np.log(progress + law.progress_scale)
    log_undamaged = np.log(undamaged + law.progress_scale)
    norm = [ones, np.log(rate), log_progress, -damage]
    return dataclasses.replace(
        law,
        jitter=float(np.exp(jitter[1])),
        jitter_exponent=float(jitter[0]),
        batch_noise=float(scatter.std()) if len(scatter) else 0.0,
        grad_norm=_log_linear(measured["grad_norm"], norm),
        update_size=_log_linear(
            measured["update_size"], [ones, np.log(rate), log_undamaged]
        ),
    )


def _log_linear(values: FloatArray, terms: list[FloatArray]) -> tuple[float, ...]:
    """Return the weights of a sum of terms that is nearest to ln(values)."""
    usable = np.isfinite(values) & (values > 0.0)
    if not usable.any():
        return (0.0,) * len(terms)
    matrix = np.stack([term[usable] for term in terms], axis=1)
    weights = np.linalg.lstsq(matrix, np.log(values[usable]), rcond=None)[0]
    return tuple(float(weight) for weight in weights)
