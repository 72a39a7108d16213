"""The statistics of a comparison: rliable's estimators, computed with SciPy.

Agarwal et al. 2021 (arXiv 2108.13264): interquartile means, intervals by a bootstrap
stratified by task, probability of improvement, performance profiles. A score is a
loss: lower is better. Runs with the same task and seed share data and initialization,
so differences are taken seed by seed and then resampled.

`Scores` maps a task to the scores of its runs, (runs,), in the order of the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]
Scores = Mapping[str, FloatArray]

RESAMPLES = 9_999
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval; `None` with a single run."""

    value: float
    low: float | None
    high: float | None


def iqm(scores: ArrayLike, axis: int = -1) -> FloatArray:
    """Return the interquartile mean: the mean of the middle half."""
    return np.asarray(stats.trim_mean(scores, 0.25, axis=axis))


def pooled_iqm(scores: Scores) -> Estimate:
    """Return the interquartile mean over the runs of all tasks."""

    def statistic(*samples: FloatArray, axis: int = -1) -> FloatArray:
        return iqm(np.concatenate(samples, axis=axis), axis=axis)

    return bootstrap(list(scores.values()), statistic)


def bootstrap(samples: Sequence[FloatArray], statistic: object) -> Estimate:
    """Return `statistic` of `samples` and its interval; samples are strata.

    Args:
        samples: One per stratum, (runs,) each.
        statistic: Function of as many arrays, and of their `axis`.
    """
    value = float(statistic(*samples))  # type: ignore[operator]  # scipy's protocol
    if min(map(len, samples)) < 2:
        return Estimate(value, None, None)
    if all(np.ptp(sample) == 0.0 for sample in samples):
        return Estimate(value, value, value)
    interval = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


def differences(scores: Scores, reference: Scores) -> dict[str, FloatArray]:
    """Return scores minus the reference's, seed by seed, on their common tasks."""
    return {t: scores[t] - reference[t] for t in scores if t in reference}


def improvement(scores: Scores, reference: Scores) -> Estimate:
    """Return the probability that a run beats a run of the reference on its task.

    This is the Mann-Whitney statistic, averaged over tasks.
    """
    tasks = [task for task in scores if task in reference]

    def statistic(*samples: FloatArray, axis: int = -1) -> FloatArray:
        half = len(samples) // 2
        shares = [
            _share_below(losses, reference_losses)
            for losses, reference_losses in zip(
                samples[:half], samples[half:], strict=True
            )
        ]
        return np.asarray(np.mean(shares, axis=0))

    pairs = [*(scores[t] for t in tasks), *(reference[t] for t in tasks)]
    return bootstrap(pairs, statistic)


def _share_below(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the share of pairs (along the last axis) with the first value lower."""
    left, right = first[..., :, None], second[..., None, :]
    wins = (left < right) + 0.5 * (left == right)
    return np.asarray(wins.mean(axis=(-2, -1)))


def profile(scores: Scores, thresholds: FloatArray) -> FloatArray:
    """Return the share of runs at or below each threshold, averaged over tasks."""
    shares = [
        (values[:, None] <= thresholds).mean(axis=0) for values in scores.values()
    ]
    return np.asarray(np.mean(shares, axis=0))


def paired_p(difference: Scores) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on all pairs.

    The test uses ranks: a few runs that were damaged early are outliers, which would
    hide a difference from a t-test.
    """
    pairs = np.concatenate(list(difference.values()))
    if len(pairs) < 2 or not pairs.any():
        return 1.0
    return float(stats.wilcoxon(pairs).pvalue)


def adjusted(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted by the method of Benjamini and Hochberg (1995).

    It bounds the expected share of false calls among all differences called.
    """
    if not p_values:
        return {}
    values = stats.false_discovery_control(list(p_values.values()))
    return dict(zip(p_values, map(float, values), strict=True))


def call(estimate: Estimate, adjusted_p: float) -> str:
    """Return ``better``, ``worse`` or ``open``.

    A difference is called if its interval excludes zero and its p-value, adjusted for
    the number of comparisons, is below 5 %.
    """
    low, high = estimate.low, estimate.high
    if low is None or high is None or adjusted_p >= 1.0 - LEVEL:
        return "open"
    if high < 0.0:
        return "better"
    return "worse" if low > 0.0 else "open"
