"""Laws of the loss with round constants, and runs planted from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lr_gym import LossLaw, preset
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.law import (
    LawConstants,
    RunParams,
    predict,
)
from lr_gym.surrogate.runs import RecordedRun

ALIKE = RunParams(np.ones(1), np.zeros(1))
POINTS = np.array([0, 10, 20, 40, 60, 80, 100, 120, 140, 150, 180, 220, 260, 300])


def make_constants(**overrides: Any) -> LawConstants:
    """Return round numbers near those of Shakespeare at `tiny`."""
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
    return LossLaw(
        training=preset("tiny"),
        constants=make_constants(**overrides),
        lowest_rate=1e-4,
        highest_rate=0.3,
    )


def planted_runs(law: LawConstants, seed: int) -> list[RecordedRun]:
    """Noisy runs of a law: schedules at four peaks, jumps, random walks."""
    random = np.random.default_rng(seed)
    clock = np.arange(300)
    rows = [
        peak * schedule_factor(schedule, clock, 300, 20)
        for peak in (3e-4, 1e-3, 3e-3, 1e-2)
        for schedule in ("constant", "cosine", "step", "wsd")
    ]
    for factor in (0.1, 3.0, 10.0, 30.0, 90.0):
        rows.append(np.where(clock < 150, 1e-3, 1e-3 * factor))
        rows.append(np.where((clock < 150) | (clock > 180), 1e-3, 1e-3 * factor))
    for _ in range(10):
        steps = random.choice([0.5, 1.0, 2.0], 15)
        rows.append(np.repeat(np.clip(1e-3 * np.cumprod(steps), 1e-4, 3e-2), 20))
    rows.append(np.full(300, 10.0))
    rates = np.stack(rows)
    members = RunParams(
        np.exp(0.03 * random.standard_normal(len(rows))),
        0.3 * random.standard_normal(len(rows)),
    )
    losses, states = predict(law, rates, POINTS, members)
    losses = losses + 0.01 * random.standard_normal(losses.shape)
    losses[-1, 1:] = np.nan
    train = np.concatenate(
        [np.full((len(rows), 1), np.nan), 0.5 * (losses[:, 1:] + losses[:, :-1])], 1
    )
    shown = np.stack([1.0 + s["undamaged"] for s in states], axis=1)
    return [
        RecordedRun(
            name=str(row),
            seed=row,
            rates=rates[row],
            iterations=POINTS,
            val_loss=losses[row],
            train_loss=train[row],
            grad_norm=shown[row],
            update_size=shown[row],
        )
        for row in range(len(rows))
    ]
