"""Schedules: known values, bounds and formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_gym import SCHEDULES, schedule_factor


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 300),
    st.floats(0, 1),
)
def test_factors_stay_between_zero_and_one(
    schedule: str, max_iters: int, share: float
) -> None:
    warmup = int(share * max_iters)
    factors = schedule_factor(schedule, np.arange(max_iters), max_iters, warmup)
    assert factors.shape == (max_iters,)
    assert np.all(factors >= 0)
    assert np.all(factors <= 1 + 1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_after_warmup_only_one_cycle_ever_rises(schedule: str) -> None:
    factors = schedule_factor(schedule, np.arange(20, 500), 500, 20)
    rises = np.diff(factors).max() > 1e-12
    assert rises == (schedule == "one_cycle")


def test_warmup_is_linear() -> None:
    factors = schedule_factor("constant", [0, 4, 8, 9, 50], 100, 9)
    assert factors.tolist() == pytest.approx([0.1, 0.5, 0.9, 1.0, 1.0])


def test_the_cosine_is_nanogpts() -> None:
    # nanoGPT's get_lr at learning_rate 1e-3, min_lr 1e-4, written out.
    iterations = np.arange(100, 5000)
    ratio = (iterations - 100) / (5000 - 100)
    expected = 1e-4 + 0.5 * (1 + np.cos(np.pi * ratio)) * (1e-3 - 1e-4)
    actual = 1e-3 * schedule_factor("cosine", iterations, 5000, 100)
    np.testing.assert_allclose(actual, expected)


def test_known_values() -> None:
    def at(schedule: str, progress: float) -> float:
        return float(schedule_factor(schedule, 1000 * progress, 1000, 0))

    assert at("cosine_to_zero", 0.5) == pytest.approx(0.5)
    assert at("linear", 0.25) == pytest.approx(0.75)
    assert [at("step", p) for p in (0.2, 0.4, 0.9)] == pytest.approx([1, 0.1, 0.01])
    assert at("wsd", 0.8) == 1.0
    assert at("wsd", 0.9) == pytest.approx(1 - math.sqrt(0.5))
    assert at("wsd_linear", 0.9) == pytest.approx(0.5)
    assert at("one_cycle", 0.0) == pytest.approx(1 / 25)
    assert at("one_cycle", 0.3) == pytest.approx(1.0)
    assert at("one_cycle", 1.0) == pytest.approx(0.0, abs=1e-12)
    assert float(schedule_factor("inverse_sqrt", 400, 1000, 100)) == pytest.approx(0.5)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"base_schedule must be one of .* 'cosin'; did"
    ):
        schedule_factor("cosin", 0, 10, 0)
