"""Small real training on real text."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from agents.agent import run_episode
from agents.baselines import BASELINES
from lr_gym import PopulationTrainer, load_corpus, preset, schedule_factor

pytestmark = pytest.mark.real_text
SHORT: dict[str, Any] = {"max_iters": 120, "eval_interval": 30, "warmup_iters": 10}


def test_a_short_run_learns_shakespeare() -> None:
    env = gym.make("LRTuning-shakespeare-v0", scale="tiny", **SHORT)
    trajectory = run_episode(env, BASELINES["constant"](0), options={"seed": 1})
    losses = [step["val_loss"] for step in trajectory]
    assert losses[0] == pytest.approx(math.log(65), abs=0.05)
    assert np.all(np.diff(losses) < 0)
    assert losses[-1] < 2.7


def test_the_checkers_pass_on_real_text() -> None:
    settings = SHORT | {"max_iters": 8, "eval_interval": 4, "warmup_iters": 0}
    env = gym.make("LRTuning-shakespeare-v0", scale="tiny", **settings)
    check_env(env.unwrapped)
    check_env_sb3(env.unwrapped)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_always_keep_is_the_same_training_number_for_number(schedule: str) -> None:
    env = gym.make(
        "LRTuning-shakespeare-v0", scale="tiny", base_schedule=schedule, **SHORT
    )
    trajectory = run_episode(env, BASELINES[schedule](0), options={"seed": 5})

    config = preset("tiny", "shakespeare", **SHORT)
    trainer = PopulationTrainer(config, load_corpus("shakespeare"))
    trainer.reset([0], [5])
    factors = schedule_factor(schedule, np.arange(120), 120, 10)
    rates = config.learning_rate * factors[None]
    losses = [float(trainer.evaluate()[0])]
    for start in range(0, 120, 30):
        trainer.train(30, rates[:, start : start + 30])
        losses.append(float(trainer.evaluate()[0]))
    assert [step["val_loss"] for step in trajectory] == losses


def test_population_members_match_single_runs_after_fifty_iterations() -> None:
    config = preset("tiny", "shakespeare", precision="float32")
    corpus = load_corpus("shakespeare")
    population = PopulationTrainer(config, corpus, 9)  # enough for vmap
    population.reset(range(9), range(9))
    population.train(50, [1e-3] * 9)
    together = population.evaluate()
    for member in (0, 4, 8):
        alone = PopulationTrainer(config, corpus)
        alone.reset([0], [member])
        alone.train(50, [1e-3])
        assert alone.evaluate()[0] == pytest.approx(together[member], abs=1e-4)


@pytest.mark.slow
def test_the_learning_rate_matters() -> None:
    config = preset("tiny", "shakespeare")
    rates = np.array([3e-4, 3e-3, 3e-2])
    trainer = PopulationTrainer(config, load_corpus("shakespeare"), 3)
    trainer.reset(range(3), [0, 0, 0])
    factors = schedule_factor("constant", np.arange(600), 600, config.warmup_iters)
    trainer.train(600, rates[:, None] * factors)
    lower, best, higher = trainer.evaluate()
    assert lower - best > 0.05
    assert higher - best > 0.05


@pytest.mark.slow
def test_a_schedule_beats_a_constant_rate_and_a_wrong_rate_loses() -> None:
    finals = {}
    for name, rate in (("constant", 3e-3), ("linear", 3e-3), ("linear", 1e-4)):
        env = gym.make(
            "LRTuning-shakespeare-v0",
            scale="tiny",
            base_schedule=name,
            learning_rate=rate,
        )
        trajectory = run_episode(env, BASELINES[name](0), options={"seed": 0})
        finals[name, rate] = trajectory[-1]["val_loss"]
    assert finals["linear", 3e-3] < finals["constant", 3e-3] - 0.02
    assert finals["linear", 1e-4] > finals["linear", 3e-3] + 0.3
