"""The ramp-and-undo rule: its decisions by hand, and its runs from wrong rates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from agents.agent import make_env, make_population, run_episode, run_population
from agents.baselines import BASELINES, RampAndUndoAgent
from benchmarks.methods import find_method
from lr_gym.ramp_and_undo import Decision, RampAndUndo
from tests.small import SMALL

SETTINGS: dict[str, Any] = {"scale": "tiny"} | SMALL


def decisions(rule: RampAndUndo, losses: list[float]) -> list[Decision]:
    """What the rule says to losses long before the cooldown."""
    return [rule.decide(loss, 0.01 * i) for i, loss in enumerate(losses)]


def test_it_ramps_until_the_first_rise_and_then_holds() -> None:
    rule = RampAndUndo(start=0.1, growth=2.0, undo_factor=4.0)
    found = decisions(rule, [4.0, 3.9, 3.92, 3.96, 3.8, 3.7, 3.8, 3.7])
    up, hold, back = Decision(2.0, False), Decision(1.0, False), Decision(0.25, True)
    # Each is compared with the one before: 3.92 is within the tolerance, 3.96 not.
    assert found == [Decision(0.1, False), up, up, back, hold, hold, back, hold]


def test_what_is_compared_with_is_the_loss_that_an_undo_restores() -> None:
    rule = RampAndUndo()
    found = decisions(rule, [4.0, 3.0, 3.5, 3.2, 3.02])
    # 3.5 is taken back, and so is 3.2: the weights are those of 3.0 again.
    assert [decision.undo for decision in found] == [False, False, True, True, False]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_rise(loss: float) -> None:
    rule = RampAndUndo()
    assert decisions(rule, [4.0, loss])[1].undo


def test_the_cooldown_falls_by_one_minus_the_root_whatever_its_steps() -> None:
    rule = RampAndUndo(start=1.0, cooldown=0.4, growth=3.0)
    rule.decide(4.0, 0.0)
    rate = 1.0
    for progress in (0.6, 0.61, 0.7, 0.85, 0.99):
        decision = rule.decide(3.0, progress)
        rate *= decision.factor
        assert not decision.undo
        assert rate == pytest.approx(1.0 - math.sqrt((progress - 0.6) / 0.4))
    risen = rule.decide(9.0, 0.995)
    assert risen.undo
    rate *= risen.factor
    assert rate == pytest.approx((1.0 - math.sqrt(0.395 / 0.4)) / 3.0)
    assert rule.decide(3.0, 1.0).factor == 0.0
    assert rule.decide(3.0, 1.0).factor == 0.0


def test_reset_forgets_the_last_run() -> None:
    rule = RampAndUndo()
    losses = [4.0, 3.0, 3.5, 3.2]
    first = decisions(rule, losses)
    rule.decide(3.0, 0.9)
    rule.reset()
    assert decisions(rule, losses) == first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start", 0.0),
        ("start", 1.1),
        ("growth", 1.0),
        ("tolerance", -0.1),
        ("undo_factor", 1.0),
        ("cooldown", 1.0),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        RampAndUndo(**{name: value})
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        RampAndUndo(**{name: "a"})  # type: ignore[arg-type]  # that is refused


# ------------------------------------------------------------------------- the agent


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
    settings = {**RampAndUndoAgent.settings, **SETTINGS, "max_iters": 24}
    env = make_env("markov", **settings)
    population = make_population(env, 3)
    agents = [RampAndUndoAgent(tolerance=t) for t in (0.03, 0.0, 0.03)]
    rates = [1e-3, 0.5, 0.9]
    together = run_population(population, agents, [1, 2, 3], rates)
    undone = 0
    for member, trajectory in enumerate(together):
        options = {"seed": member + 1, "learning_rate": rates[member]}
        alone = run_episode(env, agents[member], options=options)
        for mine, theirs in zip(trajectory, alone, strict=True):
            assert mine["learning_rate"] == pytest.approx(theirs["learning_rate"])
            assert mine["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-4)
        undone += sum(row["action"][1] > 0 for row in trajectory[1:])
    assert undone


@pytest.mark.real_text
@pytest.mark.slow
@pytest.mark.parametrize("factor", [1 / 10, 1.0, 30.0])
def test_it_comes_near_a_tuned_schedule_from_wrong_rates(factor: float) -> None:
    """600 iterations on Shakespeare at `tiny`: tuned WSD ends at about 2.13."""
    agent = BASELINES["ramp_and_undo"](0)
    env = make_env("shakespeare", **{**agent.settings, "scale": "tiny"})
    given = {"seed": 5_000, "learning_rate": 8e-3 * factor}
    final = run_episode(env, agent, options=given)[-1]
    assert not final["diverged"]
    assert final["val_loss"] < 2.3  # WSD from there: 2.33, 2.15, 3.3
    assert np.isfinite(final["val_loss"])
