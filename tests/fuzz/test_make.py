"""Keywords of any type and value: refused when making, or an environment that works."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import lr_gym
from lr_gym import (
    LossLaw,
    LRTuningEnv,
    LRTuningVectorEnv,
    MDPConfig,
    TrainingConfig,
)
from lr_gym.config import ARCHITECTURES, EVALUATIONS, PRECISIONS
from lr_gym.envs.trainer_choice import EPISODE_FIELDS
from lr_gym.mdp.config import ACTION_TYPES, DECISION_SPACINGS, REWARDS
from lr_gym.mdp.observations import FEATURES
from lr_gym.sb3 import make_vec_env
from lr_gym.schedules import SCHEDULES
from lr_gym.surrogate.law_files import packaged_law
from lr_gym.validation import field_names
from tests.helpers.fuzzing import (
    ANYTHING,
    NUMBERS,
    POSITIVE,
    RARELY,
    changed_json,
    fuzz,
    mostly,
    refused,
)
from tests.helpers.small import SMALL

LAW: LossLaw = packaged_law("markov", "tiny")
# Keywords of a simulated run: the law's, with few decisions.
SIMULATED: dict[str, Any] = {
    "scale": "tiny",
    "max_iters": 40,
    "eval_interval": 10,
    "warmup_iters": 5,
    "trainer": "surrogate",
}
FAMILY: dict[str, Any] = {
    "corpora": ["markov"],
    "n_layer": [1],
    "n_embd": [16],
    "batch_size": [4],
    "max_iters": [8, 16],
    "lr_factor": [0.1, 10.0],
    "good_lr": 1e-3,
    "good_lr_width": 16,
}
SIMULATED_FAMILY = {**FAMILY, "n_layer": [2], "n_embd": [64], "batch_size": [16]}
TYPED: dict[str, st.SearchStrategy[Any]] = {
    "architecture": st.sampled_from(ARCHITECTURES),
    "evaluation": st.sampled_from(EVALUATIONS),
    "precision": st.sampled_from(PRECISIONS),
    "action_type": st.sampled_from(ACTION_TYPES),
    "reward": st.sampled_from(REWARDS),
    "base_schedule": st.sampled_from(SCHEDULES),
    "decision_spacing": st.sampled_from(DECISION_SPACINGS),
    "features": st.lists(st.sampled_from(list(FEATURES)), max_size=4),
    "lr_factors": st.lists(NUMBERS | st.floats(0.1, 10.0), max_size=4),
    "allow_undo": st.booleans(),
    "bias": st.booleans(),
    "render_mode": st.sampled_from([None, "ansi", "human"]),
    "scale": st.sampled_from(["tiny", "tiny", "mini"]),
    "corpus": st.sampled_from([None, "markov"]),
    "trainer": st.sampled_from(["real", "surrogate", LAW]),
    "progress_bar": st.booleans(),
    "num_envs": st.integers(1, 3),
    "max_episode_steps": st.integers(1, 9),
    "device": st.sampled_from(["cpu", "auto"]),
    "n_head": st.sampled_from([1, 2, 4]),
    "loss_floor": st.none() | st.floats(0.0, 5.0),
    "test_fraction": st.none() | st.floats(0.0, 0.5),
    "autoreset_mode": st.sampled_from(["NextStep", "SameStep", "Disabled"]),
    "compile": st.sampled_from(["off", "auto"]),
}
NAMED = ("scale", "corpus", "trainer", "family", "progress_bar", "render_mode")
VECTOR = ("num_envs", "autoreset_mode", "max_episode_steps")
NAMES = dict.fromkeys(
    (*NAMED, *VECTOR, *field_names(TrainingConfig), *field_names(MDPConfig))
)
DEFAULTS = {
    field.name: field.default
    for config in (TrainingConfig, MDPConfig)
    for field in dataclasses.fields(config)
}
FREE = (*EPISODE_FIELDS, *field_names(MDPConfig), "render_mode", "scale")
MAX_CHUNK = 1_000  # updates: more take long, as asked


def value_of(name: str) -> st.SearchStrategy[Any]:
    """Return values for a keyword: mostly of the right type and often in range."""
    default = DEFAULTS.get(name)
    usual = TYPED.get(name, NUMBERS)
    if name not in TYPED and isinstance(default, float):
        usual = POSITIVE | st.floats(0.0, 1.0) | st.floats(1.0, 9.0)
    elif name not in TYPED and isinstance(default, int):
        usual = st.integers(1, 40) | st.sampled_from([2, 4, 16])
    return mostly(usual, NUMBERS | ANYTHING)


@st.composite
def keywords(draw: st.DrawFn, base: dict[str, Any]) -> dict[str, Any]:
    """Draw the keywords of an environment with up to six changes.

    Simulated runs keep the model of their law most often.
    """
    chosen = dict(base)
    names = list(NAMES) if "trainer" not in base or draw(RARELY) else list(FREE)
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(names))
        chosen[name] = draw(value_of(name))
    if "family" in base and draw(st.booleans()):
        chosen["family"] = draw(changed_json(base["family"]))
    return chosen


def make(**chosen: Any) -> None:
    """Make an environment, take two steps, check what it returns."""
    env = LRTuningEnv(**chosen)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    if env.episodes.training.eval_interval > MAX_CHUNK:
        return
    env.action_space.seed(0)
    for _ in range(2):
        observation, reward, terminated, _, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert math.isfinite(float(reward))
        assert all(math.isfinite(number) for number in info.values())
        json.dumps(dataclasses.asdict(env.episodes.training))
        if env.render_mode == "ansi":
            env.render()
        if terminated:
            break
    env.close()


def make_vector(**chosen: Any) -> None:
    """Make a population, take two steps, check what it returns."""
    envs = LRTuningVectorEnv(**{"num_envs": 2, **chosen})
    envs.reset(seed=0)
    envs.action_space.seed(0)
    if envs.episodes.training.eval_interval > MAX_CHUNK:
        return
    observations, rewards, terminated, truncated, _ = envs.step(
        envs.action_space.sample()
    )
    assert envs.observation_space.contains(observations)
    assert np.isfinite(rewards).all()
    if not (terminated | truncated).any():
        envs.step(envs.action_space.sample())


@fuzz(25)
@given(chosen=keywords({"scale": "tiny", "corpus": "markov", **SMALL}))
def test_real_training(chosen: dict[str, Any]) -> None:
    refused(lambda: make(**chosen))


@fuzz(10)
@given(chosen=keywords({"scale": "tiny", "corpus": "markov", **SMALL}))
def test_real_populations(chosen: dict[str, Any]) -> None:
    refused(lambda: make_vector(**chosen))


@fuzz(10)
@given(
    chosen=keywords({"scale": "tiny", "corpus": "markov", **SMALL, "family": FAMILY})
)
def test_real_families(chosen: dict[str, Any]) -> None:
    refused(lambda: make(**chosen))


@fuzz(40)
@given(chosen=keywords(SIMULATED))
def test_simulated_training(chosen: dict[str, Any]) -> None:
    refused(lambda: make(**chosen))


@fuzz(25)
@given(chosen=keywords(SIMULATED))
def test_simulated_populations(chosen: dict[str, Any]) -> None:
    refused(lambda: make_vector(**chosen))


@fuzz(25)
@given(chosen=keywords({**SIMULATED, "family": SIMULATED_FAMILY}))
def test_simulated_families(chosen: dict[str, Any]) -> None:
    refused(lambda: make(**chosen))


@fuzz(10)
@given(
    chosen=keywords(SIMULATED),
    n_envs=mostly(st.integers(1, 3), ANYTHING),
    seed=mostly(st.none() | st.integers(0, 9), ANYTHING),
    env_id=mostly(st.just("LRTuningEnv-v0"), ANYTHING),
)
def test_stable_baselines(
    chosen: dict[str, Any],
    n_envs: Any,
    seed: Any,
    env_id: Any,
) -> None:
    def make_vec() -> None:
        env = make_vec_env(env_id, n_envs, seed=seed, **chosen)
        env.reset()

    chosen.pop("num_envs", None)
    refused(make_vec)


@fuzz(20)
@given(content=changed_json(dataclasses.asdict(LAW.training)))
def test_a_configuration_from_json(content: Any) -> None:
    if isinstance(content, dict):
        refused(lambda: hash(lr_gym.preset(**{"scale": "tiny", **content})))
