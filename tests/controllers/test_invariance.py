"""What the controller does not depend on: units, evaluations, noise, the first rate.

The training regresses a sum of sines, with fresh points in every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lr_gym.controllers import ControllerLR
from lr_gym.controllers.damage import FIRST, Damage

UPDATES = 300
RATE = 1e-2  # near the best constant one
SEEDS = range(3)


@dataclass
class Run:
    """A training run.

    Attributes:
        loss: Final validation loss, divided by the unit.
        rates: The learning rate of every update.
        undos: Updates made before each undo.
    """

    loss: float
    rates: list[float]
    undos: list[int]


def mean_loss(runs: list[Run]) -> float:
    return fmean(run.loss for run in runs)


def sines(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(rows, 4, generator=generator) * 2.0 - 1.0
    return x, torch.sin(3.0 * x).sum(1, keepdim=True)


def train(
    rate: float = RATE,
    *,
    seed: int = 0,
    unit: float = 1.0,
    offset: float = 0.0,
    evaluations: int = 0,
    seen: Callable[[int, float], float] | None = None,
    damage_at: int | None = None,
    mode: str = "min",
) -> Run:
    """Train with the controller; `seen` maps (evaluation, loss) to what it is shown."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 1))
    # Without eps Adam does not depend on the unit.
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, eps=1e-30)
    undo = model if evaluations else ()
    controller = ControllerLR(optimizer, UPDATES, undo=undo, mode=mode)
    x, y = sines(1_000, torch.Generator().manual_seed(-1))

    def loss_on(x: Tensor, y: Tensor) -> Tensor:
        return unit * nn.functional.mse_loss(model(x), y) + offset

    rates = []
    done = 0
    for update in range(UPDATES):
        if done < evaluations and update >= done * UPDATES / evaluations:
            with torch.no_grad():
                loss = float(loss_on(x, y))
            shown = loss if seen is None else seen(done, loss)
            controller.step(-shown if mode == "max" else shown)
            done += 1
        if update == damage_at:
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(torch.randn(weight.shape, generator=generator))
        optimizer.zero_grad()
        loss_on(*sines(64, generator)).backward()  # type: ignore[no-untyped-call]
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
    assert rates == pytest.approx(controller.used_learning_rates().tolist())
    with torch.no_grad():
        final = (float(loss_on(x, y)) - offset) / unit
    return Run(final, rates, [r.iteration for r in controller.history if r.undone])


@pytest.fixture(scope="module")
def plain() -> Run:
    """A run without any evaluation."""
    return train()


@pytest.mark.parametrize("unit", [2.0**-10, 2.0**10])
@pytest.mark.parametrize("offset", [0.0, -5.0])
def test_the_unit_of_the_loss(plain: Run, unit: float, offset: float) -> None:
    run = train(unit=unit, offset=offset, evaluations=20)
    assert run.rates == plain.rates
    assert run.undos == []


def test_a_score_that_rises(plain: Run) -> None:
    assert train(mode="max", evaluations=20).rates == plain.rates


@pytest.mark.parametrize("evaluations", [1, 3, 10, 100, UPDATES])
def test_the_number_of_evaluations(plain: Run, evaluations: int) -> None:
    run = train(evaluations=evaluations)
    same = run.undos[0] if run.undos else UPDATES  # a momentary rise is undone
    assert run.rates[:same] == plain.rates[:same]
    assert len(run.undos) <= (evaluations > 100)


@pytest.mark.parametrize("evaluations", [10, 50, UPDATES])
def test_the_noise_of_evaluations(plain: Run, evaluations: int) -> None:
    rng = np.random.default_rng(evaluations)
    noisy = train(
        evaluations=evaluations, seen=lambda _, loss: loss + 0.2 * rng.normal()
    )  # the loss falls by 2
    assert noisy.undos == []
    assert noisy.loss <= 1.05 * plain.loss


@pytest.mark.parametrize("at", [5, 20, 35])
def test_one_evaluation_that_is_too_low(plain: Run, at: int) -> None:
    run = train(evaluations=50, seen=lambda i, loss: loss - 1.0 if i == at else loss)
    assert run.undos == []
    assert run.rates == plain.rates


@pytest.mark.parametrize("at", [20, 35])
def test_one_evaluation_that_is_too_high_costs_one_undo(at: int) -> None:
    def seen(i: int, loss: float) -> float:
        return loss + 9.0 if i == at else loss

    runs = [train(seed=seed, evaluations=50, seen=seen) for seed in SEEDS]
    assert all(len(run.undos) == 1 for run in runs)
    assert mean_loss(runs) <= 1.3 * mean_loss([train(seed=seed) for seed in SEEDS])


@pytest.mark.parametrize("unit", [1e-3, pytest.param(1e3, marks=pytest.mark.slow)])
def test_damage_is_undone_in_any_unit(unit: float) -> None:
    def runs(**settings: Any) -> list[Run]:
        return [train(seed=seed, unit=unit, **settings) for seed in SEEDS]

    undone = runs(evaluations=50, damage_at=153)
    assert all(len(run.undos) == 1 for run in undone)
    assert mean_loss(undone) <= 1.3 * mean_loss(runs())
    assert mean_loss(runs(damage_at=153)) > 5.0 * mean_loss(undone)


def test_losses_that_are_not_finite_are_damage() -> None:
    run = train(evaluations=50, seen=lambda i, x: math.nan if i in (30, 31) else x)
    assert len(run.undos) == 2
    assert min(run.rates) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("share", [1 / 100, 1 / 30, 30.0, 300.0])
def test_the_first_rate(share: float) -> None:
    runs = [train(share * RATE, seed=seed) for seed in SEEDS]
    right = [train(seed=seed) for seed in SEEDS]
    for run, other in zip(runs, right, strict=True):
        assert max(run.rates) == pytest.approx(max(other.rates), rel=0.3)
    fall = 2.2  # of the loss in a run
    assert mean_loss(runs) <= mean_loss(right) + 0.02 * fall


def test_the_run_ends_near_a_rate_of_zero(plain: Run) -> None:
    assert plain.rates[-1] < 0.03 * max(plain.rates)
    assert plain.rates[0] == pytest.approx(RATE / 300)


def test_bounds_are_kept() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    controller = ControllerLR(optimizer, 50, min_lr=1e-2, max_lr=2e-2)
    for _ in range(50):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    rates = controller.used_learning_rates()
    assert rates.max() <= 2e-2 * (1 + 1e-9)
    assert rates[:30].min() >= 1e-2 * (1 - 1e-9)


# ------------------------------------------------------------------------ the verdict

values = st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=60)


@given(values, st.integers(-20, 20))
@settings(max_examples=100, deadline=None)
def test_verdicts_have_no_unit(losses: list[float], power: int) -> None:
    one, other = Damage(), Damage()
    for loss in losses:
        assert one.judge(loss) == other.judge(loss * 2.0**power)


@given(values)
@settings(max_examples=100, deadline=None)
def test_one_rise_counts_once(losses: list[float]) -> None:
    damage = Damage()
    verdicts = [damage.judge(loss) for loss in losses]
    found = np.flatnonzero(verdicts)
    assert (np.diff(found) > FIRST).all()
