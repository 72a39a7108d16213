"""Seeds, options and actions of any type and value: refused without side effects."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lr_gym import LRTuningEnv, LRTuningVectorEnv
from lr_gym.sb3 import make_vec_env
from tests.fuzz.test_make import SIMULATED, SIMULATED_FAMILY
from tests.helpers.fuzzing import (
    ANYTHING,
    NUMBERS,
    TENSORS,
    changed_json,
    fuzz,
    mostly,
    refused,
)

INSTANCE = {
    "corpus": "markov",
    "n_layer": 2,
    "n_embd": 64,
    "batch_size": 16,
    "max_iters": 60,
    "good_lr": 1e-3,
    "lr_factor": 3.0,
}
DTYPES = (
    arrays.integer_dtypes()
    | arrays.unsigned_integer_dtypes()
    | arrays.floating_dtypes()
    | arrays.boolean_dtypes()
    | arrays.complex_number_dtypes()
    | arrays.byte_string_dtypes()
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
ARRAYS = arrays.arrays(DTYPES, SHAPES)
VALUES = ANYTHING | NUMBERS | ARRAYS | TENSORS | st.lists(NUMBERS, max_size=3)
RATES = mostly(st.floats(1e-6, 1.0) | st.lists(st.floats(1e-6, 1.0)), VALUES)
MASKS = arrays.arrays(np.bool_, 2)
INSTANCES = changed_json(INSTANCE) | st.sampled_from([{}, {"max_iters": 80}])
OPTIONS = mostly(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": mostly(st.integers(0, 9), VALUES),
            "learning_rate": RATES,
            "reset_mask": mostly(MASKS, VALUES),
        },
    ),
    VALUES,
)
FAMILY_OPTIONS = st.fixed_dictionaries(
    {"instance": mostly(INSTANCES | st.lists(INSTANCES, max_size=2), VALUES)},
    optional={"learning_rate": RATES, "seed": VALUES},
)
SEEDS = mostly(st.none() | st.integers(0, 9), VALUES)


@lru_cache
def env_of(kind: str, **settings: Any) -> Any:
    settings = {**SIMULATED, **settings}
    if settings.pop("family", False):
        settings["family"] = SIMULATED_FAMILY
    if kind == "single":
        return LRTuningEnv(**settings)
    if kind == "vector":
        return LRTuningVectorEnv(2, **settings)
    return make_vec_env("LRTuningEnv-v0", 2, **settings)


@fuzz(60)
@given(seed=SEEDS, options=OPTIONS, family=FAMILY_OPTIONS)
def test_reset_of_one(seed: Any, options: Any, family: Any) -> None:
    for varied, given_options in ((False, options), (True, family)):
        env = env_of("single", family=varied)
        if isinstance(given_options, dict):
            given_options.pop("reset_mask", None)
        if not refused(lambda: env.reset(seed=seed, options=given_options)):  # noqa: B023
            observation, *_ = env.step(1)
            assert env.observation_space.contains(observation)


@fuzz(60)
@given(seed=SEEDS, options=OPTIONS, family=FAMILY_OPTIONS)
def test_reset_of_two(seed: Any, options: Any, family: Any) -> None:
    for varied, given_options in ((False, options), (True, family)):
        envs = env_of("vector", family=varied, autoreset_mode=AutoresetMode.DISABLED)
        envs.reset(seed=0)
        if not refused(lambda: envs.reset(seed=seed, options=given_options)):  # noqa: B023
            observations, *_ = envs.step([1, 1])
            assert envs.observation_space.contains(observations)


@fuzz(60)
@given(
    kind=st.sampled_from(["single", "vector", "sb3"]),
    action_type=st.sampled_from(["discrete", "continuous"]),
    undo=st.booleans(),
    action=VALUES,
)
def test_actions(kind: str, action_type: str, undo: bool, action: Any) -> None:
    env = env_of(kind, action_type=action_type, allow_undo=undo)
    env.reset()
    with contextlib.suppress(InvalidAction):
        env.step(action)
