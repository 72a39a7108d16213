"""Errors of the environment: clear, early, and without side effects."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded

from lr_gym import (
    LRTuningEnv,
    LRTuningVectorEnv,
    MDPConfig,
    TrainingConfig,
    preset,
)
from lr_gym.sb3 import make_vec_env
from lr_gym.validation import field_names
from tests.helpers.small import SIMULATED, SMALL, small_env, small_trainer

BAD_KEYWORDS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lr_factor": (1, 2)}, TypeError, "'lr_factor'; did you mean 'lr_factors'"),
    ({"scale": "small"}, ValueError, "scale must be one of auto, paper, mini, tiny"),
    (
        {"learning_rate": 2.0},
        ValueError,
        r"learning_rate must be in \[min_lr, max_lr\]",
    ),
    ({"learning_rate": "1e-3"}, TypeError, "learning_rate must be a number"),
    ({"render_mode": "rgb"}, ValueError, "render_mode must be None or one of"),
    ({"progress_bar": "yes"}, TypeError, "progress_bar must be True or False"),
    ({"device": "cuda:99"}, ValueError, "device must be 'auto' or a torch device"),
    ({"block_size": 10**7}, ValueError, "pass a longer text or a smaller block_size"),
    ({"max_iters": 1}, ValueError, "eval_interval must not exceed max_iters"),
    ({"device": "meta"}, ValueError, "device must hold numbers, got 'meta'"),
    ({"scale": "auto", "device": 3}, TypeError, "device must be a string, got 3"),
    ({"corpus": ""}, ValueError, "corpus '' is a folder"),
    ({"corpus": {1}, "trainer": "surrogate"}, TypeError, "corpus must be None or a s"),
    ({"trainer": np.zeros(2)}, TypeError, "trainer must have the methods of"),
    ({"render_mode": np.zeros(2)}, ValueError, "render_mode must be None or one of"),
    ({"max_lr": 1e308}, ValueError, r"max_lr must be in \[1e-30, 1e\+30\]"),
    ({"max_log2_factor": 1e3}, ValueError, r"max_log2_factor .* \(0, 99\]"),
    ({"n_embd": 65_536, "n_layer": 900}, ValueError, "training needs at least .* GiB"),
    ({"batch_size": 10**9}, ValueError, "training needs at least .* GiB of memory"),
    (
        SIMULATED | {"max_iters": 10**7, "eval_interval": 1},
        ValueError,
        "at most 1000000 are allowed: pass larger intervals",
    ),
]


@pytest.mark.parametrize(("keywords", "error", "message"), BAD_KEYWORDS)
def test_a_bad_keyword_is_refused_when_making(
    keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LRTuningEnv(**({"scale": "tiny"} | SMALL | keywords))


@pytest.mark.parametrize(
    "make",
    [
        lambda **unknown: preset("tiny", **unknown),
        lambda **unknown: small_env(**unknown),
        lambda **unknown: gym.make_vec("LRTuning-markov-v0", 2, **unknown),
        lambda **unknown: small_env(trainer="surrogate", **unknown),
        lambda **unknown: small_env(trainer="surrogate", family={}, **unknown),
        lambda **unknown: LRTuningEnv(trainer=small_trainer(), **unknown),
        lambda **unknown: make_vec_env("LRTuning-markov-v0", 2, **unknown),
    ],
)
def test_an_unknown_keyword_has_pythons_words(make: Callable[..., object]) -> None:
    """TorchRL retries without `frameskip` only if the error has these words."""
    words = "got an unexpected keyword argument 'frameskip'. Allowed: "
    with pytest.raises(TypeError, match=words):
        make(frameskip=1)


def test_an_unknown_keyword_lists_every_allowed_one() -> None:
    for env_class in (LRTuningEnv, LRTuningVectorEnv):
        named = set(inspect.signature(env_class).parameters) - {"settings"}
        fields = {*field_names(TrainingConfig), *field_names(MDPConfig)}
        with pytest.raises(TypeError) as caught:
            env_class(zzz=1)
        allowed = str(caught.value).split("Allowed: ")[1].split(", ")
        assert sorted(allowed) == sorted(named | fields)
    with pytest.raises(
        TypeError, match=r"^preset\(\) got an .* 'zzz'\. Allowed: corpus"
    ):
        preset("tiny", zzz=1)
    with pytest.raises(TypeError, match="'autoreset'; did you mean 'autoreset_mode'"):
        LRTuningVectorEnv(autoreset="Disabled")


def test_an_unknown_option_lists_every_allowed_one() -> None:
    message = "reset(options=...) has an unknown key 'mask'. Allowed: seed, learn"
    with pytest.raises(TypeError, match=re.escape(message)):
        small_env().reset(options={"mask": 1})
    with pytest.raises(TypeError, match=r"Allowed: reset_mask, seed, learning_rate$"):
        LRTuningVectorEnv(scale="tiny", **SMALL).reset(options={"mask": 1})


def test_an_unknown_corpus_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shakespear.*did you mean 'shakespeare'"):
        LRTuningEnv(scale="tiny", corpus="shakespear")


@pytest.mark.parametrize(
    "action",
    [
        3,
        -1,
        1.0,
        True,
        np.True_,
        "1",
        "up",
        None,
        np.array([1, 1]),
        math.nan,
        [[1], []],
        torch.ones(1, requires_grad=True),
    ],
)
def test_a_bad_action_is_refused_and_costs_nothing(action: Any) -> None:
    env = small_env().unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="action must be in Discrete"):
        env.step(action)
    assert env.step(1)[-1]["iteration"] == 2


@pytest.mark.parametrize(
    "action",
    [[2.0], [math.nan], [0.1, 0.1], 0.5, "up", ["0.5"], [True], [None], [1j], [1e300]],
)
def test_a_bad_continuous_action_is_refused(action: Any) -> None:
    env = small_env(action_type="continuous").unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="action must be in Box"):
        env.step(action)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": 0.1}, TypeError, "unknown key 'lr'"),
        ({"seed": -1}, ValueError, "seed must be in"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be"),
        ({"learning_rate": 5.0}, ValueError, "learning_rate must be in"),
        ({"learning_rate": None}, TypeError, "learning_rate must be a number"),
        (["seed"], TypeError, "options must be a mapping such as a dict, got"),
        (np.zeros(2), TypeError, "options must be a mapping such as a dict, got"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small_env().reset(options=options)


def test_stepping_outside_an_episode_is_refused() -> None:
    env = small_env().unwrapped
    with pytest.raises(ResetNeeded):
        env.step(1)
    env.reset(seed=0)
    for _ in range(4):
        env.step(1)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(1)
    fresh = small_env(render_mode="ansi").unwrapped
    with pytest.raises(ResetNeeded, match="nothing to render yet"):
        fresh.render()
