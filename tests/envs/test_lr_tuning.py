"""The single environment through Gymnasium's API."""

from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import lr_gym
from lr_gym import LRTuningEnv, PopulationTrainer, schedule_factor
from lr_gym.config import ARCHITECTURES
from lr_gym.envs.episodes import INFO_KEYS
from lr_gym.envs.spaces import build_observation_space
from lr_gym.mdp.config import REWARDS, MDPConfig
from lr_gym.mdp.observations import FEATURES
from tests.helpers.small import SMALL, small_config, small_env

VARIANTS: list[dict[str, Any]] = [
    {},
    {"allow_undo": True},
    {"action_type": "continuous"},
    {"action_type": "continuous", "allow_undo": True, "max_log2_factor": 10.0},
    {"features": tuple(FEATURES)},
    {"decision_spacing": "dense_start", "dense_interval": 1},
    {"base_schedule": "wsd", "evaluation": "paper", "eval_iters": 2},
    *({"reward": reward} for reward in REWARDS),
    *({"architecture": name} for name in ARCHITECTURES if name != "gpt"),
]


def rollout(env: gym.Env[Any, Any], actions: list[Any], **reset: Any) -> list[Any]:
    steps: list[Any] = [env.reset(**reset)]
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2]:
            break
    return steps


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_checkers_pass_for_every_alternative(variant: dict[str, Any]) -> None:
    env = small_env(**variant)
    check_env(env.unwrapped)
    check_env_sb3(env.unwrapped)


@pytest.mark.parametrize(
    "bounds", [{}, {"max_lr": 0.1}, {"min_lr": 2.0, "max_lr": 4.0}], ids=str
)
def test_zeros_are_observations(bounds: dict[str, Any]) -> None:
    """TorchRL fills in zeros, and checks them against the space."""
    config = MDPConfig(features=tuple(FEATURES), **bounds)
    zeros = np.zeros(len(FEATURES), dtype=np.float32)
    assert zeros in build_observation_space(config)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_spec_survives_json(variant: dict[str, Any]) -> None:
    env = small_env(**variant)
    assert env.spec is not None
    copy = gym.make(EnvSpec.from_json(env.spec.to_json()))
    action = env.action_space.sample()
    for first, second in zip(
        rollout(env, [action], seed=3), rollout(copy, [action], seed=3), strict=True
    ):
        assert np.array_equal(first[0], second[0])
        assert first[-1] == second[-1]
    assert copy.observation_space == env.observation_space
    assert copy.action_space == env.action_space


def test_pickling_gives_the_same_environment() -> None:
    env = small_env().unwrapped
    copy = pickle.loads(pickle.dumps(env))  # noqa: S301 - our own bytes
    first, second = (rollout(e, [2, 0], seed=1)[-1] for e in (env, copy))
    assert first[1:] == second[1:]


def test_two_seeded_rollouts_agree_bit_for_bit() -> None:
    actions = [2, 1, 0, 2]
    for dropout in (0.0, 0.2):
        first, second = (
            rollout(small_env(dropout=dropout), actions, seed=5) for _ in range(2)
        )
        assert str(first) == str(second)
        assert all(
            np.array_equal(a[0], b[0]) for a, b in zip(first, second, strict=True)
        )
    other = rollout(small_env(dropout=0.2), actions, seed=6)
    assert str(other) != str(second)


def test_unseeded_resets_differ_and_repeat_after_a_seed() -> None:
    env = small_env()
    _, first = env.reset(seed=0)
    _, second = env.reset()
    assert first["seed"] != second["seed"]
    env.reset(seed=0)
    assert env.reset()[1] == second


def test_options_name_the_runs_seed_and_rate() -> None:
    env = small_env()
    _, info = env.reset(options={"seed": 12, "learning_rate": 0.02})
    assert (info["seed"], info["learning_rate"]) == (12, 0.02)
    _, info = env.reset()
    assert info["learning_rate"] == SMALL["learning_rate"]


def test_info_has_the_documented_keys_and_types_everywhere() -> None:
    steps = rollout(small_env(), [1, 1, 1, 1], seed=0)
    documented = LRTuningEnv.__doc__ or ""
    section = documented.split("## Information")[1].split("## Arguments")[0]
    kinds = None
    for step in steps:
        info = step[-1]
        assert tuple(info) == INFO_KEYS
        assert all(f"`{key}`" in section for key in info)
        found = {key: type(value) for key, value in info.items()}
        kinds = kinds or found
        assert found == kinds
        assert all(math.isfinite(value) for value in info.values())
    assert [step[-1]["iteration"] for step in steps] == [0, 2, 4, 6, 8]


def test_the_budget_terminates_and_nothing_truncates() -> None:
    steps = rollout(small_env(), [1] * 10, seed=0)
    assert [step[2] for step in steps[1:]] == [False, False, False, True]
    assert not any(step[3] for step in steps[1:])
    limited = TimeLimit(small_env(), max_episode_steps=2)
    limited.reset(seed=0)
    assert [limited.step(1)[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_rewards_telescope_on_real_training() -> None:
    steps = rollout(small_env(learning_rate=1e-2), [1, 2, 0, 1], seed=0)
    total = sum(step[1] for step in steps[1:])
    expected = steps[0][1]["val_loss"] - steps[-1][-1]["val_loss"]
    assert total == pytest.approx(expected)
    assert total > 0


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_always_keeping_is_the_same_training_without_the_environment(
    schedule: str,
) -> None:
    env = small_env(base_schedule=schedule, warmup_iters=3)
    steps = rollout(env, [1] * 4, options={"seed": 9})
    config = small_config(warmup_iters=3)
    trainer = PopulationTrainer(config, lr_gym.load_corpus("markov"))
    trainer.reset([0], [9])
    factors = schedule_factor(schedule, np.arange(8), 8, 3)
    losses = [float(trainer.evaluate()[0])]
    for start in range(0, 8, 2):
        trainer.train(2, 1e-3 * factors[None, start : start + 2])
        losses.append(float(trainer.evaluate()[0]))
    assert [step[-1]["val_loss"] for step in steps] == losses


def test_the_agents_rate_is_in_the_optimizer_at_every_iteration() -> None:
    env = small_env(base_schedule="linear", warmup_iters=3, max_iters=8)
    env.reset(seed=0)
    trainer = env.unwrapped.trainer  # type: ignore[attr-defined]
    seen: list[float] = []
    step = trainer.optimizer.step

    def spy(state: Any, gradients: Any, lr: Any, diverged: Any) -> Any:
        seen.append(float(lr[0]))
        return step(state, gradients, lr, diverged)

    object.__setattr__(trainer.optimizer, "step", spy)
    actions = [2, 2, 0, 1]
    for action in actions:
        info = env.step(action)[-1]
        assert info["optimizer_lr"] == seen[-1]
        assert trainer.telemetry()["learning_rate"][0] == seen[-1]
    agent = np.repeat(1e-3 * np.cumprod([(0.5, 1.0, 2.0)[a] for a in actions]), 2)
    expected = agent * schedule_factor("linear", np.arange(8), 8, 3)
    np.testing.assert_allclose(seen, expected, rtol=1e-12)


def test_info_shows_an_optimizer_that_ignores_the_agents_rate() -> None:
    """The paper's bug, planted: `info["optimizer_lr"]` is read back, not planned."""
    env = small_env()
    trainer = env.unwrapped.trainer  # type: ignore[attr-defined]
    step = trainer.optimizer.step

    def stuck(state: Any, gradients: Any, lr: Any, diverged: Any) -> Any:
        return step(state, gradients, torch.full_like(lr, 1e-3), diverged)

    object.__setattr__(trainer.optimizer, "step", stuck)
    _, info = env.reset(seed=0)
    assert info["optimizer_lr"] == 0.0
    for learning_rate in (2e-3, 4e-3):
        info = env.step(2)[-1]
        assert info["learning_rate"] == learning_rate
        assert info["optimizer_lr"] == 1e-3


def test_undo_on_real_training() -> None:
    env = small_env(allow_undo=True, max_lr=100.0)
    env.reset(seed=0)
    trainer = env.unwrapped.trainer  # type: ignore[attr-defined]
    start = trainer.state_dict()["parameters"]
    env.step(2)
    trained: list[Any] = []
    train = trainer.train

    def spy(*arguments: Any) -> Any:
        trained.append(trainer.state_dict())
        return train(*arguments)

    trainer.train = spy
    info = env.step(3)[-1]
    assert np.array_equal(trained[0]["parameters"], start)
    assert trained[0]["iteration"].item() == 2
    assert info["iteration"] == 4
    assert info["learning_rate"] == pytest.approx(1e-3 * 2 / 3)


def test_a_continuous_undo_comes_with_any_factor_at_dense_decisions() -> None:
    env = small_env(
        action_type="continuous",
        allow_undo=True,
        max_log2_factor=8.0,
        decision_spacing="dense_start",
        dense_interval=1,
        dense_fraction=0.5,
        dropout=0.2,
    )
    env.reset(seed=0)
    trainer = env.unwrapped.trainer  # type: ignore[attr-defined]
    before = trainer.state_dict()
    actions = [(-0.5, -1.0), (0.25, -1.0), (-0.125, 1.0), (0.0, 0.0), (0.0, 0.5)]
    expected = 1e-3 * np.cumprod([2.0**-4, 4.0, 0.5, 1.0, 1.0])
    starts, infos = [], []
    train = trainer.train

    def spy(*arguments: Any) -> Any:
        starts.append(trainer.state_dict())
        return train(*arguments)

    trainer.train = spy
    for action in actions:
        infos.append(env.step(np.array(action, dtype=np.float32))[-1])
    rates = [info["learning_rate"] for info in infos]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert [info["iteration"] for info in infos] == [1, 2, 3, 4, 6]
    # Before the third chunk the second, before the fifth the fourth was taken back.
    assert np.array_equal(starts[0]["parameters"], before["parameters"])
    for undone, back_to in ((2, 1), (4, 3)):
        for name in ("parameters", "updates"):
            assert np.array_equal(starts[undone][name], starts[back_to][name])
        assert starts[undone]["iteration"] == starts[back_to]["iteration"] + 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_huge_rate_ends_as_diverged_with_finite_numbers(architecture: str) -> None:
    env = small_env(
        architecture=architecture,
        learning_rate=1e3,
        max_lr=1e4,
        max_iters=80,
        eval_interval=20,
        features=tuple(FEATURES),
    )
    steps = rollout(env, [2] * 4, seed=0)
    observation, reward, terminated, truncated, info = steps[-1]
    assert (terminated, truncated, info["diverged"]) == (True, False, True)
    assert observation in env.observation_space
    assert math.isfinite(reward)
    assert all(math.isfinite(value) for value in info.values())
    calm = small_env(architecture=architecture, max_iters=80, eval_interval=20)
    survivor = rollout(calm, [1] * 4, seed=0)
    assert sum(s[1] for s in steps[1:]) < sum(s[1] for s in survivor[1:])


def test_auto_scale_says_what_it_chose() -> None:
    with pytest.warns(UserWarning, match=r"scale='auto' chose .* pass scale="):
        env = LRTuningEnv(device="cpu")
    assert env.episodes.training.scale == "mini"


@pytest.mark.parametrize("fraction", [None, 0.0])
def test_a_test_split_that_is_too_short(tmp_path: Path, fraction: float | None) -> None:
    path = tmp_path / "short.txt"
    path.write_text("abcdefghijklmno" if fraction is None else "ab" * 20)
    settings = {"corpus": str(path), "block_size": 4, "test_fraction": fraction}
    env = small_env(id="LRTuningEnv-v0", **settings)
    env.reset(seed=0)
    message = (
        f"needs at least 2: pass a longer text or a larger test_fraction (it is "
        f"{0.05 if fraction is None else fraction})"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        env.unwrapped.trainer.evaluate("test")  # type: ignore[attr-defined]


def test_eval_tokens_are_whole_windows() -> None:
    env = small_env(eval_tokens=3).unwrapped
    env.reset(seed=0)
    predictions = env.trainer._evaluation.windows("val", exact=False)[1]  # type: ignore[attr-defined]
    assert predictions == SMALL["block_size"]


def test_a_text_file_is_a_corpus(tmp_path: Path) -> None:
    path = tmp_path / "poem.txt"
    path.write_text("roses are red, violets are blue\n" * 40)
    env = small_env(id="LRTuningEnv-v0", corpus=str(path))
    _, info = env.reset(seed=0)
    assert info["val_loss"] == pytest.approx(
        math.log(len(set(path.read_text()))), abs=0.1
    )
    assert env.spec is not None
    assert json.loads(env.spec.to_json())["kwargs"]["corpus"] == str(path)
