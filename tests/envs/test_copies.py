"""Copies and pickles in mid-episode continue as the original does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import lr_gym
from lr_gym.mdp.observations import FEATURES
from tests.helpers.small import SMALL, small_env, small_trainer

FAMILY = {"n_embd": [16, 32], "max_iters": [8, 12], "lr_factor": [0.1, 10]}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"dropout": 0.2, "features": tuple(FEATURES), "render_mode": "ansi"},
    {"allow_undo": True},
    {"family": FAMILY, "allow_undo": True},
]
COPIES: list[Callable[[Any], Any]] = [
    copy.deepcopy,
    copy.copy,
    lambda env: pickle.loads(pickle.dumps(env)),  # noqa: S301 - our own bytes
]
SIMULATED: list[dict[str, Any]] = [
    {},
    {"allow_undo": True, "features": tuple(FEATURES)},
    {"family": {"lr_factor": [0.1, 10], "max_iters": [300, 600]}},
]


def continued(env: Any, steps: int = 7) -> list[str]:
    """Return all that an environment says from here on, across an episode's end."""
    said = []
    for _ in range(steps):
        result = env.step(env.action_space.sample())
        said.append(repr(result))
        if np.all(result[2]) and isinstance(env, gym.Env):
            said.append(repr(env.reset()))
    return said


@pytest.mark.parametrize("duplicate", COPIES, ids=["deepcopy", "copy", "pickle"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_copy_continues_bit_for_bit(
    variant: dict[str, Any], duplicate: Callable[[Any], Any]
) -> None:
    env = small_env(**variant).unwrapped
    env.action_space.seed(0)
    for steps in (0, 1, 2):
        env.reset(seed=3)
        for _ in range(steps):
            env.step(0)
        copied = duplicate(env)
        assert copied.spec == env.spec
        if env.render_mode is not None:
            assert copied.render() == env.render()
        ahead = continued(copied)
        assert continued(env) == ahead, "the copy shares something with the original"


@pytest.mark.parametrize("variant", SIMULATED, ids=str)
def test_a_copy_of_a_simulated_run_continues(variant: dict[str, Any]) -> None:
    env = gym.make("LRTuningSim-markov-tiny-v0", **variant)
    env.action_space.seed(0)
    env.reset(seed=3)
    env.step(2)
    ahead = continued(copy.deepcopy(env), 25)  # the wrappers too
    assert continued(env, 25) == ahead


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_copy_of_a_vector_environment_continues(
    variant: dict[str, Any], mode: str
) -> None:
    settings = {"scale": "tiny", "autoreset_mode": mode, **SMALL, **variant}
    envs: Any = gym.make_vec("LRTuning-markov-v0", num_envs=2, **settings)
    envs.action_space.seed(0)
    envs.reset(seed=3)
    for steps in (1, 3):  # the second time after some ends
        for _ in range(steps):
            envs.step(envs.action_space.sample())
        ahead = continued(copy.deepcopy(envs))
        assert continued(envs) == ahead


def test_a_copy_before_the_first_reset_draws_the_same_runs() -> None:
    env = small_env().unwrapped
    env.np_random  # noqa: B018 - starts the generator
    assert copy.deepcopy(env).reset()[1] == env.reset()[1]


def test_a_users_trainer_is_not_copied_in_mid_episode() -> None:
    """Its functions are shared by copies, so that two episodes would train one run."""
    env = lr_gym.LRTuningEnv(trainer=small_trainer(), max_iters=80)
    env.reset(seed=0)
    for duplicate in COPIES:
        with pytest.raises(TypeError, match="make another environment with another"):
            duplicate(env)
