"""Simulated training with learning rates that vary within a chunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_gym import SurrogateTrainer, load_law
from lr_gym.surrogate.law_files import packaged_laws
from tests.helpers.simulated import make_trainer

CHUNKS = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.floats(1e-8, 0.3),
        st.floats(0.5, 2.0),  # by how much the rate changes within the chunk
    ),
    min_size=1,
    max_size=8,
)


def test_a_constant_rate_is_one_step_in_any_population() -> None:
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


def test_a_plan_equals_its_segments() -> None:
    plan = np.linspace(1e-3, 2e-3, 10)[None]
    whole, parts = make_trainer(batch_noise=0.0), make_trainer(batch_noise=0.0)
    loss = whole.train(10, plan)
    halves = [parts.train(5, plan[:, :5].mean(1)), parts.train(5, plan[:, 5:].mean(1))]
    assert loss == pytest.approx(np.mean(halves))
    assert whole.evaluate() == pytest.approx(parts.evaluate())
    ticks: list[int] = []
    whole.train([7], plan, on_iteration=lambda: ticks.append(1))
    assert len(ticks) == 7


def test_a_chunk_of_no_updates_changes_no_member() -> None:
    trainer = make_trainer(2)
    trainer.train(10, np.array([1e-3, 2e-3]))
    before = trainer.state_dict()
    for rates in (np.full(2, 1e-3), np.full((2, 0), 1e-3), np.full((2, 5), 1e-3)):
        assert np.isnan(trainer.train(0, rates)).all()
    after = trainer.state_dict()
    assert all((after[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("path", packaged_laws().values(), ids=lambda path: path.stem)
@settings(deadline=None, max_examples=30)
@given(chunks=CHUNKS, planned=st.booleans())
def test_a_run_is_bit_for_bit_the_same_in_any_population(
    path: Path, chunks: list[tuple[int, float, float]], planned: bool
) -> None:
    law = load_law(path)
    company, alone = SurrogateTrainer(law, 3), SurrogateTrainer(law)
    company.reset(range(3), [5, 6, 7])
    alone.reset([0], [6])
    for count, rate, change in chunks:
        rates = np.full((3, count), rate)
        if planned:  # for all: a member alone in its plan would be alone in company
            rates *= np.linspace(1.0, change, count)
        given_rates = rates if planned else rates[:, 0]
        losses = company.train(count, given_rates)
        assert alone.train(count, given_rates[1:2]).tobytes() == losses[1:2].tobytes()
        assert alone.evaluate().tobytes() == company.evaluate()[1:2].tobytes()
        kept = company.snapshot([1])
        for name, values in alone.snapshot([0]).items():
            assert values.tobytes() == kept[name].tobytes(), name
        measured = company.telemetry()
        for name in ("grad_norm", "update_size", "tokens"):
            assert alone.telemetry()[name][0] == measured[name][1]
