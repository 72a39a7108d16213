"""Simulated training by plans: rates that vary within a chunk."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_surrogate import make_trainer


def test_a_constant_rate_is_one_step_whatever_a_neighbour_does() -> None:
    together, alone = make_trainer(2), make_trainer(1)
    together.reset([0, 1], [3, 4])
    alone.reset([0], [3])
    rates = np.full((2, 30), 4e-3)
    rates[1] = np.linspace(1e-4, 4e-3, 30)
    pair = together.train(30, rates)
    assert pair[0] == alone.train(30, np.array([4e-3]))[0]
    assert together.evaluate()[0] == alone.evaluate()[0]
    assert np.isfinite(pair[1])
    assert together.iteration.tolist() == [30, 30]


def test_a_plan_is_what_its_segments_are() -> None:
    plan = np.linspace(1e-3, 2e-3, 10)[None]
    whole, parts = make_trainer(batch_noise=0.0), make_trainer(batch_noise=0.0)
    loss = whole.train(10, plan)
    halves = [parts.train(5, plan[:, :5].mean(1)), parts.train(5, plan[:, 5:].mean(1))]
    assert loss == pytest.approx(np.mean(halves))
    assert whole.evaluate() == pytest.approx(parts.evaluate())
    ticks: list[int] = []
    whole.train([7], plan, on_iteration=lambda: ticks.append(1))
    assert len(ticks) == 7
