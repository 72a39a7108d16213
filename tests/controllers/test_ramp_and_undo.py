"""The ramp-and-undo agent: a low start, and training from wrong learning rates.

tests/controllers/test_rule.py tests the rule itself.
"""

from __future__ import annotations

from typing import Any

import pytest

from agents.agent import make_env, make_population, run_episode, run_population
from agents.baselines import BASELINES, RampAndUndoAgent
from benchmarks.comparison.methods import find_method
from tests.helpers.small import SMALL

SETTINGS: dict[str, Any] = {"scale": "tiny"} | SMALL


def test_the_agent_starts_far_below_before_any_training() -> None:
    for name, start in (("ramp_and_undo", 300), ("ramp_and_undo_near", 30)):
        agent = find_method(name).make(0)
        env = make_env("markov", **{**agent.settings, **SETTINGS})
        trajectory = run_episode(env, agent, seed=0)
        rates = [row["learning_rate"] for row in trajectory]
        assert rates[0] == 1e-3
        assert rates[1] == pytest.approx(1e-3 / start, rel=1e-5)
        assert trajectory[1]["optimizer_lr"] == rates[1]


def test_agents_run_side_by_side_as_they_do_alone() -> None:
    settings = {**RampAndUndoAgent().settings, **SETTINGS, "max_iters": 24}
    env = make_env("markov", **settings)
    population = make_population(env, 3)
    agents = [RampAndUndoAgent(tolerance=t) for t in (0.03, 0.0, 0.03)]
    rates = [1e-3, 0.5, 0.9]
    together = run_population(population, agents, [1, 2, 3], rates)
    undone = 0
    for member, trajectory in enumerate(together):
        options = {"seed": member + 1, "learning_rate": rates[member]}
        alone = run_episode(env, agents[member], options=options)
        for row, row_alone in zip(trajectory, alone, strict=True):
            assert row["learning_rate"] == pytest.approx(row_alone["learning_rate"])
            assert row["val_loss"] == pytest.approx(row_alone["val_loss"], abs=1e-4)
        undone += sum(row["action"][1] > 0 for row in trajectory[1:])
    assert undone


@pytest.mark.real_text
@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "bound"),
    # At 30 the rule does not reach 2.3: it ended at 2.54 here, WSD at 3.35.
    [(1 / 10, 2.294), (1.0, 2.3), (30.0, 3.298)],
)
def test_it_trains_from_wrong_learning_rates(factor: float, bound: float) -> None:
    """600 iterations on Shakespeare at `tiny`: tuned WSD ends at about 2.13."""
    agent = BASELINES["ramp_and_undo"](0)
    env = make_env("shakespeare", **{**agent.settings, "scale": "tiny"})
    options = {"seed": 5_000, "learning_rate": 8e-3 * factor}
    final = run_episode(env, agent, options=options)[-1]
    assert not final["diverged"]
    assert final["val_loss"] < bound
