"""Schedule replay, schedule search, the placebo agent, and other optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.agent import Agent, episodes_of, make_population, run_episode
from agents.baselines import ScheduleAgent
from agents.optimizers import (
    CONTROLLER,
    OPTIMIZERS,
    HypergradientAdamW,
    OptimizerTrainer,
    TorchOptimizer,
)
from agents.replay import ActionReplay, OpenLoop, Placebo
from agents.search import Lookahead, PopulationBased, RandomSearch
from agents.tabular_q import TabularQ
from lr_gym import PopulationTrainer, load_corpus
from lr_gym.trainers.adamw import AdamW
from tests.helpers.small import small_config, small_env


def rates_of(trajectory: list[dict[str, Any]]) -> list[float]:
    return [step["learning_rate"] for step in trajectory[1:]]


def env_for(agent: Agent, **overrides: Any) -> Any:
    return small_env(**{**agent.settings, **overrides})


# ---------------------------------------------------------------------------- replays


def test_an_open_loop_follows_its_curve_as_far_as_actions_reach() -> None:
    agent = OpenLoop([1e-3, 1.5e-3, 1e-4, 1e-4])
    run = run_episode(env_for(agent), agent, options={"learning_rate": 1e-3})
    # From 1.5e-3 an action reaches half of it at most; the next goes on from there.
    assert rates_of(run) == pytest.approx([1e-3, 1.5e-3, 7.5e-4, 3.75e-4], rel=1e-6)


@pytest.mark.parametrize("curve", [[], [1e-3, 0.0], [float("nan")], [-1.0]])
def test_a_curve_of_impossible_rates_is_refused(curve: list[float]) -> None:
    with pytest.raises(ValueError, match="a curve needs rates above 0"):
        OpenLoop(curve)


def test_an_action_replay_repeats_a_run() -> None:
    agent = TabularQ(3, protocol="paper")
    env = env_for(agent)
    first = run_episode(env, agent, options={"seed": 5})
    replay = ActionReplay([step["action"] for step in first[1:]], agent.settings)
    again = run_episode(env, replay, options={"seed": 5})
    assert again == first


def test_the_placebo_believes_but_trains_as_the_schedule() -> None:
    placebo = Placebo(TabularQ(1, protocol="paper"), "cosine")
    placebo.inner.epsilon = 1.0  # type: ignore[attr-defined]  # it chooses all the time
    claimed = run_episode(env_for(placebo), placebo, options={"seed": 0})
    cosine = ScheduleAgent("cosine")
    real = run_episode(env_for(cosine), cosine, options={"seed": 0})
    assert [s["val_loss"] for s in claimed] == [s["val_loss"] for s in real]
    assert [s["optimizer_lr"] for s in claimed] == [s["optimizer_lr"] for s in real]
    assert len(set(placebo.claimed)) > 1
    options = {"seed": 0, "learning_rate": 4e-3}
    run_episode(env_for(placebo), placebo, options=options)
    assert placebo.claimed[0] == pytest.approx(4e-3)  # the run's own, not the preset's
    assert placebo.inner.table  # type: ignore[attr-defined]  # and it learns from that


# --------------------------------------------------------------------------- searches


@pytest.mark.parametrize("make", [RandomSearch, PopulationBased])
def test_a_search_spends_its_budget_and_follows_what_it_found(make: Any) -> None:
    agent = make(0)
    assert agent.learns
    env = env_for(agent)
    agent.train(env, 12)
    assert agent.training_episodes == 12
    assert len(agent.history) >= 6
    assert all(np.isfinite(agent.history))
    run = run_episode(
        env, agent, options={"seed": 0, "learning_rate": agent.learning_rate}
    )
    assert run[1]["learning_rate"] == pytest.approx(agent.curve[0])
    again = make(0)
    again.train(env_for(agent), 12)
    assert again.curve == agent.curve


def test_population_based_training_copies_the_best_over_the_worst() -> None:
    agent = PopulationBased(0)
    population = make_population(env_for(agent), 8).episodes
    population.reset_members(
        range(8), range(8), np.geomspace(1e-6, 3e-2, 8).astype(float)
    )
    population.step(np.zeros(8))
    losses = population.state.val_loss.copy()
    order = np.argsort(losses)
    curves = [[float(rate)] for rate in population.state.learning_rate]
    steps = agent._exploit(population, np.arange(8), curves)
    best, worst = set(order[:2].tolist()), order[6:].tolist()
    weights = population.trainer.snapshot(range(8))["parameters"]
    for loser in worst:
        donors = [w for w in best if torch.equal(weights[w], weights[loser])]
        assert len(donors) == 1
        assert curves[loser] == curves[donors[0]]
        assert population.state.val_loss[loser] == losses[donors[0]]
        assert 2.0 ** steps[loser] in (pytest.approx(0.8), pytest.approx(1.25))
    assert not steps[order[:6]].any()


def test_lookahead_takes_the_best_of_all_actions_and_leaves_no_trace() -> None:
    agent = Lookahead()
    env = env_for(agent)
    run = run_episode(env, agent, options={"seed": 2})
    replay = ActionReplay([step["action"] for step in run[1:]], {})
    assert run_episode(small_env(), replay, options={"seed": 2}) == run
    for action in range(3):  # no other first action would have been better
        other = ActionReplay([action], {})
        first = run_episode(small_env(), other, options={"seed": 2})[1]
        assert run[1]["val_loss"] <= first["val_loss"]


def test_lookahead_runs_alone() -> None:
    with pytest.raises(ValueError, match="lookahead runs alone"):
        Lookahead().begin(make_population(small_env(), 2))


# ------------------------------------------------------------------------- optimizers


def trainer_with(make: Any) -> OptimizerTrainer:
    return OptimizerTrainer(small_config(), load_corpus("markov"), make)


def test_torchs_own_adamw_in_that_place_trains_as_ours() -> None:
    def make(reference: AdamW) -> TorchOptimizer:
        return TorchOptimizer(reference, torch.optim.AdamW)

    theirs = trainer_with(make)
    ours = PopulationTrainer(small_config(), load_corpus("markov"))
    for trainer in (theirs, ours):
        trainer.reset([0], [4])
    rates = np.geomspace(1e-2, 1e-4, 12)[None]
    np.testing.assert_allclose(theirs.train(12, rates), ours.train(12, rates), 1e-5)
    np.testing.assert_allclose(theirs.evaluate(), ours.evaluate(), 1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_learns_and_repeats(name: str) -> None:
    trainer = trainer_with(OPTIMIZERS[name].make)
    rate = OPTIMIZERS[name].learning_rate or 1e-2
    losses = []
    for _ in range(2):
        trainer.reset([0], [1])
        before = float(trainer.evaluate()[0])
        trainer.train(60, [rate])
        losses.append((before, float(trainer.evaluate()[0])))
    assert losses[0] == losses[1]
    assert losses[0][1] < losses[0][0] - 0.05


def test_schedule_free_evaluates_its_average_and_goes_on_unharmed() -> None:
    trainer = trainer_with(OPTIMIZERS["schedule_free"].make)
    trainer.reset([0], [0])
    trainer.train(5, [1e-2])
    training_point = trainer._state["parameters"].clone()
    once, twice = trainer.evaluate(), trainer.evaluate()
    assert once == twice
    torch.testing.assert_close(trainer._state["parameters"], training_point)


def test_the_hypergradient_raises_a_rate_that_is_too_low() -> None:
    trainer = trainer_with(HypergradientAdamW)
    trainer.reset([0], [0])
    trainer.train(40, [1e-5])
    assert trainer.telemetry()["learning_rate"][0] > 1.1e-5


def test_an_optimizer_that_diverges_is_an_outcome() -> None:
    for name in OPTIMIZERS:
        trainer = trainer_with(OPTIMIZERS[name].make)
        trainer.reset([0], [0])
        with np.errstate(all="ignore"):
            trainer.train(20, [1e30])
        assert trainer.diverged()[0] or not np.isfinite(trainer.evaluate()[0])


def controlled_run(rate: float) -> tuple[float, list[float]]:
    """Return the last loss of a run under the controller, and its learning rates.

    The rates are those of the first update, of one half way, and of the last.
    """
    parts = (1, 79, 80)
    config = small_config(max_iters=sum(parts))
    trainer = OptimizerTrainer(config, load_corpus("markov"), CONTROLLER.make)
    trainer.reset([0], [3])
    rates = []
    for updates in parts:
        trainer.train(updates, [rate])
        rates.append(float(trainer.telemetry()["learning_rate"][0]))
    return float(trainer.evaluate()[0]), rates


def test_the_controller_trains_from_a_wrong_rate() -> None:
    good = 3e-2
    best, rates = controlled_run(good)
    assert controlled_run(good) == (best, rates), "bit for bit"
    untrained = trainer_with(CONTROLLER.make)
    untrained.reset([0], [3])
    fall = float(untrained.evaluate()[0]) - best
    assert fall > 0.3
    assert rates[0] < good / 100
    assert rates[2] < rates[1] / 10
    for factor in (1 / 30, 30.0):
        loss, _ = controlled_run(good * factor)
        assert abs(loss - best) < 0.1 * fall


def test_the_controller_sees_every_matrix() -> None:
    """Its measure of updates has the rows and columns of layers, not of one vector."""
    trainer = trainer_with(CONTROLLER.make)
    trainer.reset([0], [0])
    trainer.train(1, [1e-2])
    stepper: Any = trainer.stepper
    weights = [w for g in stepper._optimizer.param_groups for w in g["params"]]
    expected = [*trainer.population_loss.shapes.values()]
    assert [weight.shape for weight in weights] == expected
    decays = [group["weight_decay"] for group in stepper._optimizer.param_groups]
    assert decays == [trainer.config.weight_decay, 0.0]


def test_the_agents_hold_no_run_of_the_environment() -> None:
    """What `make_population` makes is its own: the single run is not touched."""
    env = small_env()
    env.reset(seed=0)
    before = episodes_of(env).state.val_loss.copy()
    make_population(env, 2).reset(seed=0)
    assert episodes_of(env).state.val_loss == before
