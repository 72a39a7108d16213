"""Laws from a few logged curves: they predict other schedules of the same model."""

from __future__ import annotations

import numpy as np
import pytest

from lr_gym import SurrogateTrainer, fit_surrogate, preset
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.curve_fitting import fit_curves, predict_curves
from lr_gym.surrogate.law import LawConstants
from lr_gym.surrogate.replay import Replay, predict
from lr_gym.surrogate.runs import RecordedRun
from lr_gym.trainers.base import FloatArray
from tests.helpers.laws import make_constants

WARMUP = 60


def planted_law() -> LawConstants:
    """Return a law without damage; a part of its noise is slow."""
    return make_constants(
        slow_noise_share=0.4,
        slow_noise_pace=0.1,
        noise_decay_rate=2.0,
        overshoot=0.0,
        max_log_lr_jump=6.0,
        saturation_rate=1.0,
        noise_onset=1e-6,
    )


def logged(
    schedule: str, iterations: int, interval: int, *, noise: float = 0.0, seed: int = 0
) -> RecordedRun:
    """Return a curve as a log holds it, from the end of the warm-up on."""
    steps = np.arange(iterations)
    if schedule == "step":
        factor = np.where(steps < iterations / 2, 1.0, 0.3)
    else:
        factor = schedule_factor(schedule, steps, iterations, 0)
    rates = 2e-3 * factor * np.minimum(1.0, (steps + 1) / WARMUP)
    points = np.arange(WARMUP, iterations + 1, interval)
    loss = predict(planted_law(), rates[None], points)[0][0]
    loss = loss + noise * np.random.default_rng(seed).standard_normal(len(points))
    return RecordedRun(
        name=schedule, seed=seed, rates=rates, iterations=points, val_loss=loss
    )


def logs(noise: float) -> list[RecordedRun]:
    """Return three curves of different lengths and spacing."""
    kinds = (("cosine", 600, 20), ("constant", 800, 30), ("step", 500, 10))
    return [logged(*kind, noise=noise, seed=seed) for seed, kind in enumerate(kinds)]


def test_three_curves_of_any_length_predict_other_schedules() -> None:
    unit = 1e3  # of the loss: it counts in no place
    curves = [
        RecordedRun(
            name=curve.name,
            rates=curve.rates,
            iterations=curve.iterations,
            val_loss=unit * curve.val_loss,
        )
        for curve in logs(noise=0.002)
    ]
    law, members = fit_curves(curves)
    assert members.efficiency == pytest.approx(np.ones(3), abs=0.02)
    for other in (logged("wsd", 900, 15), logged("linear", 700, 25)):
        error = predict_curves(law, [other])[0] / unit - other.val_loss
        assert np.abs(error).mean() < 0.01
        assert np.abs(error).max() < 0.03


def test_a_law_of_few_curves_simulates() -> None:
    law = fit_surrogate(logs(noise=0.002), preset("tiny"))
    assert law.runs == 3
    assert law.highest_rate == pytest.approx(2e-3)
    trainer = SurrogateTrainer(law)
    before = trainer.evaluate()[0]
    trainer.train(100, [2e-3])
    assert trainer.evaluate()[0] < before


def test_runs_of_different_lengths_are_predicted_as_alone() -> None:
    law = planted_law()
    random = np.random.default_rng(0)
    rates = [1e-3 * random.uniform(0.5, 2.0, size) for size in (90, 200, 41)]
    points = [np.array([0, 10, 90]), np.array([7, 50, 120, 200]), np.array([1, 41])]
    undone = np.zeros((3, 4), dtype=np.bool_)
    undone[0, 2] = undone[1, 2] = True
    together, _ = Replay(rates, points, undone).predict(law)
    for run, (rate, point) in enumerate(zip(rates, points, strict=True)):
        flags = undone[run : run + 1, : len(point)]
        alone = predict(law, rate[None], point, undone=flags)[0][0]
        np.testing.assert_allclose(together[run, : len(point)], alone, rtol=1e-12)
        assert np.isnan(together[run, len(point) :]).all()


def test_long_segments_change_little() -> None:
    steps: FloatArray = np.arange(5_000, dtype=np.float64)
    rates = [2e-3 * schedule_factor("cosine", steps, 5_000, 500)]
    points = [np.arange(0, 5_001, 100)]
    law = planted_law()
    short, _ = Replay(rates, points).predict(law)
    replay = Replay(rates, points, tolerance=0.05)
    assert replay.rates.shape[1] < 300  # of 1,000
    np.testing.assert_allclose(replay.predict(law)[0], short, atol=2e-3)
