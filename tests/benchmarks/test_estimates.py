"""Statistics against independent computations, verdicts on known differences."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from rliable import library, metrics
from scipy import stats

from benchmarks import estimates
from benchmarks.estimates import Estimate, FloatArray, Scores
from benchmarks.paths import RESULTS

RANDOM = np.random.default_rng(0)
SCORES = {"one": RANDOM.normal(2.0, 0.1, 12), "two": RANDOM.normal(2.3, 0.2, 12)}
OTHERS = {"one": RANDOM.normal(2.05, 0.1, 12), "two": RANDOM.normal(2.2, 0.2, 12)}


def matrix(scores: Scores) -> FloatArray:
    """rliable's form: (runs, tasks)."""
    return np.stack(list(scores.values()), axis=1)


def test_the_interquartile_mean_is_rliables() -> None:
    ours = estimates.pooled_iqm(SCORES)
    assert ours.value == pytest.approx(metrics.aggregate_iqm(matrix(SCORES)))
    assert ours.value == pytest.approx(stats.trim_mean(matrix(SCORES).ravel(), 0.25))


def test_the_interval_is_that_of_rliables_stratified_bootstrap() -> None:
    ours = estimates.pooled_iqm(SCORES)
    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator
    _, theirs = library.get_interval_estimates(
        {"agent": matrix(SCORES)},
        lambda scores: np.array([metrics.aggregate_iqm(scores)]),
        reps=9_999,
    )
    low, high = theirs["agent"][:, 0]
    width = high - low
    assert ours.low == pytest.approx(low, abs=0.05 * width)
    assert ours.high == pytest.approx(high, abs=0.05 * width)


def test_the_probability_of_improvement_is_rliables() -> None:
    # rliable counts higher as better.
    theirs = metrics.probability_of_improvement(-matrix(SCORES), -matrix(OTHERS))
    assert estimates.improvement(SCORES, OTHERS).value == pytest.approx(theirs)
    share = [
        stats.mannwhitneyu(OTHERS[task], SCORES[task]).statistic / 12**2
        for task in SCORES
    ]
    assert estimates.improvement(SCORES, OTHERS).value == pytest.approx(np.mean(share))


def test_the_profile_is_rliables() -> None:
    thresholds = np.linspace(1.5, 3.0, 31).astype(float)
    ours = estimates.profile(SCORES, thresholds)
    theirs = np.mean(matrix(SCORES)[..., None] <= thresholds, axis=(0, 1))
    np.testing.assert_allclose(ours, theirs)
    above, _ = library.create_performance_profile(
        {"agent": -matrix(SCORES)}, -thresholds - 1e-12, reps=2
    )
    np.testing.assert_allclose(ours, above["agent"])


def test_the_adjustment_by_hand() -> None:
    found = estimates.adjusted({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    # p times number over rank, and never above that of the next larger p.
    assert found == pytest.approx({"a": 0.04, "c": 0.16 / 3, "b": 0.16 / 3, "d": 0.5})
    assert estimates.adjusted({}) == {}


def test_a_few_damaged_runs_do_not_hide_a_difference() -> None:
    gains = np.array(
        [-0.02, -0.03, -0.01, -0.02, -0.2, -0.03, -0.01, -0.3, -0.02, -0.2]
    )
    assert estimates.paired_p({"one": gains}) == pytest.approx(2 / 2**10)
    assert estimates.paired_p({"one": np.zeros(10)}) == 1.0


def test_pairs_are_taken_seed_by_seed() -> None:
    shifted = {task: values - 0.01 for task, values in SCORES.items()}
    pairs = estimates.differences(shifted, SCORES)
    estimate = estimates.pooled_iqm(pairs)
    # Far smaller than the spread between seeds, and yet certain.
    assert estimate.low == pytest.approx(-0.01)
    assert estimate.high == pytest.approx(-0.01)


def test_one_run_has_no_interval_and_decides_nothing() -> None:
    estimate = estimates.pooled_iqm({"one": np.array([2.0])})
    assert estimate == Estimate(2.0, None, None)
    assert estimates.call(Estimate(-1.0, None, None), 0.0) == "open"


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (-0.2, -0.1, 0.01, "better"),
        (0.1, 0.2, 0.01, "worse"),
        (-0.1, 0.1, 0.01, "open"),
        (-0.2, -0.1, 0.2, "open"),  # not after adjusting for all the comparisons
    ],
)
def test_what_counts_as_a_difference(
    low: float, high: float, p: float, expected: str
) -> None:
    assert estimates.call(Estimate((low + high) / 2, low, high), p) == expected


# ---------------------------------------------------------------------- planted truths


def recorded(label: str) -> dict[str, FloatArray]:
    """Test losses of a method in the committed comparison, by task."""
    losses: dict[str, list[float]] = {}
    with (RESULTS / "comparison" / "tiny" / "runs.csv").open() as file:
        for line in csv.DictReader(file):
            if line["label"] == label:
                losses.setdefault(line["task"], []).append(float(line["test_loss"]))
    return {task: np.array(values) for task, values in losses.items()}


def verdicts(gain: float, comparisons: int) -> list[str]:
    """Compare methods made of recorded runs, one of them `gain` nats better.

    On two tasks, ten seeds each, resampled. Between methods that are as good, a pair
    of runs on one seed differs as recorded pairs of linear and cosine do, about zero.
    Every comparison is one of a family of ten: nine more ties are made beside it.
    """
    reference, cosine = recorded("linear"), recorded("cosine")
    gaps = np.concatenate([cosine[task] - reference[task] for task in reference])
    noise = gaps - np.median(gaps)
    random = np.random.default_rng(1)

    def sample(shift: float) -> dict[str, FloatArray]:
        return {
            task: random.choice(noise, 10) * random.choice([-1.0, 1.0], 10) - shift
            for task in ("one", "two")
        }

    found = []
    for _ in range(comparisons):
        family = {"planted": sample(gain)} | {f"tie {k}": sample(0.0) for k in range(9)}
        p_values = {name: estimates.paired_p(pairs) for name, pairs in family.items()}
        p_value = estimates.adjusted(p_values)["planted"]
        estimate = estimates.pooled_iqm(family["planted"])
        found.append(estimates.call(estimate, p_value))
    return found


def test_a_planted_winner_is_found() -> None:
    assert verdicts(0.05, 20).count("better") >= 19


def test_a_planted_tie_is_a_tie() -> None:
    assert verdicts(0.0, 20).count("open") >= 19
