"""Loss laws with round constants, and noisy runs generated from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lr_gym import LossLaw, preset
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.law import LawConstants, RunParams
from lr_gym.surrogate.replay import predict
from lr_gym.surrogate.runs import RecordedRun

ALIKE = RunParams(np.ones(1), np.zeros(1))  # one run without deviation from the law
POINTS = np.array(
    [0, 10, 20, 40, 60, 80, 100, 120, 140, 150, 180, 220, 260, 300]
)  # evaluations


def make_constants(**overrides: Any) -> LawConstants:
    """Return round constants, close to those fitted to Shakespeare at `tiny`."""
    values: dict[str, Any] = {
        "initial_loss": 4.2,
        "floor": 0.8,
        "amplitude": 2.6,
        "plateau": 3.3,
        "exponent": 0.25,
        "progress_scale": 0.05,
        "early_scale": 0.02,
        "saturation_rate": 3e-3,
        "noise_loss": 0.15,
        "noise_rate": 5e-4,
        "noise_onset": 0.3,
        "noise_decay_rate": 2.0,
        "noise_clock_exponent": 0.5,
        "overshoot": 0.3,
        "overshoot_pace": 0.02,
        "tolerance": 1e-3,
        "tolerance_pace": 0.02,
        "max_log_lr_jump": 1.8,
        "damage_rate": 0.06,
        "forgetting": 1.0,
        "divergence_rate": 3.0,
    }
    return LawConstants(**(values | overrides))


def make_law(**overrides: Any) -> LossLaw:
    """Return a law with the constants of `make_constants`."""
    return LossLaw(
        training=preset("tiny"),
        constants=make_constants(**overrides),
        lowest_rate=1e-4,
        highest_rate=0.3,
    )


def planted_runs(law: LawConstants, seed: int) -> list[RecordedRun]:
    """Return noisy runs of a law: four schedules at four peaks, jumps, random walks.

    The last run diverges.
    """
    random = np.random.default_rng(seed)
    iterations = np.arange(300)
    plans = [
        peak * schedule_factor(schedule, iterations, 300, 20)
        for peak in (3e-4, 1e-3, 3e-3, 1e-2)
        for schedule in ("constant", "cosine", "step", "wsd")
    ]
    for factor in (0.1, 3.0, 10.0, 30.0, 90.0):
        jump = iterations >= 150
        plans.append(np.where(jump, 1e-3 * factor, 1e-3))
        plans.append(np.where(jump & (iterations <= 180), 1e-3 * factor, 1e-3))
    for _ in range(10):
        factors = random.choice([0.5, 1.0, 2.0], 15)
        plans.append(np.repeat(np.clip(1e-3 * np.cumprod(factors), 1e-4, 3e-2), 20))
    plans.append(np.full(300, 10.0))
    rates = np.stack(plans)
    members = RunParams(
        np.exp(0.03 * random.standard_normal(len(rates))),
        0.3 * random.standard_normal(len(rates)),
    )
    losses, states = predict(law, rates, POINTS, members)
    losses = losses + 0.01 * random.standard_normal(losses.shape)
    losses[-1, 1:] = np.nan
    train_losses = np.full_like(losses, np.nan)
    train_losses[:, 1:] = 0.5 * (losses[:, 1:] + losses[:, :-1])
    telemetry = np.stack([1.0 + state["undamaged"] for state in states], axis=1)
    return [
        RecordedRun(
            name=str(run),
            seed=run,
            rates=rates[run],
            iterations=POINTS,
            val_loss=losses[run],
            train_loss=train_losses[run],
            grad_norm=telemetry[run],
            update_size=telemetry[run],
        )
        for run in range(len(rates))
    ]
