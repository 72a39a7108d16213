"""Policy files: the loaded policy chooses the same actions as the saved one."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import NormalizeObservation
from numpy.typing import NDArray
from sb3_contrib import QRDQN, TRPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import lr_gym
from agents.agent import run_episode
from agents.tabular_q import TabularQ
from lr_gym.controllers import (
    PolicyLR,
    RampAndUndo,
    read_provenance,
    save_policy,
)
from lr_gym.sb3 import make_vec_env
from tests.helpers.small import SMALL, small_env

SETTINGS: dict[str, Any] = {
    "features": ("log_excess_loss", "log_learning_rate", "progress", "loss_slope"),
    "max_iters": 40,
}
ALGORITHMS: dict[str, Callable[[Any], Any]] = {
    "ppo": lambda env: PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0),
    "a2c": lambda env: A2C("MlpPolicy", env, seed=1),
    "trpo": lambda env: TRPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=2),
    "dqn": lambda env: DQN("MlpPolicy", env, learning_starts=4, seed=3),
    "qrdqn": lambda env: QRDQN("MlpPolicy", env, learning_starts=4, seed=4),
}


def observations(env: Any, count: int) -> NDArray[np.float32]:
    """Return observations: a quarter anywhere in the space, the rest near real runs."""
    space = env.observation_space
    low, high = space.low.astype(float), space.high.astype(float)
    random = np.random.default_rng(0)
    everywhere = random.uniform(low, high, (count // 4, len(low)))
    near = random.normal(0.0, 1.5, (count - count // 4, len(low)))
    return np.clip(np.concatenate([everywhere, near]), low, high).astype(np.float32)


def assert_same_actions(
    model: Any,
    policy: Any,
    seen: NDArray[np.float32],
    model_sees: NDArray[np.float32] | None = None,
) -> None:
    model_input = seen if model_sees is None else model_sees
    expected, _ = model.predict(model_input, deterministic=True)
    if policy.config.action_type == "continuous":
        actions = np.array([policy.action(row) for row in seen])
        np.testing.assert_allclose(actions, expected, atol=1e-6)
        decisions = [policy.act(row) for row in seen]
        span = policy.config.max_log2_factor
        factors = np.exp2(span * expected[:, 0].astype(float))
        np.testing.assert_allclose([d.factor for d in decisions], factors, rtol=1e-5)
        undos = actions[:, 1] > 0 if policy.config.allow_undo else [False] * len(seen)
        assert [decision.undo for decision in decisions] == list(undos)
        return
    assert len(set(expected.tolist())) > 1, "one action alone would show nothing"
    assert [policy.action(row) for row in seen] == expected.tolist()
    for row, action in zip(seen[:100], expected, strict=False):
        decision = policy.act(row)
        if action == policy.config.undo_action:
            assert decision.undo
            assert decision.factor == 1 / policy.config.undo_factor
        else:
            assert not decision.undo
            assert decision.factor == policy.config.lr_factors[action]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_exported_model_acts_the_same_on_random_observations(
    name: str, tmp_path: Path
) -> None:
    env = small_env(**SETTINGS)
    model = ALGORITHMS[name](env).learn(16)
    written = lr_gym.export_policy(model, tmp_path / "policy.safetensors")
    policy: Any = lr_gym.load_controller(tmp_path / "policy.safetensors")
    assert policy.config == written.config
    assert policy.config.loss_floor == pytest.approx(1.4696, abs=1e-3), "the corpus'"
    assert_same_actions(model, policy, observations(env, 10_000))


def test_so_do_undo_continuous_actions_and_standardized_observations(
    tmp_path: Path,
) -> None:
    path = tmp_path / "policy.safetensors"
    relu = {"activation_fn": torch.nn.ReLU, "net_arch": [16], "ortho_init": False}
    continuous: dict[str, Any] = {"action_type": "continuous"}
    for extra in (
        {"allow_undo": True},
        continuous,
        {"allow_undo": True, "max_log2_factor": 3.0} | continuous,
    ):
        make = partial(small_env, **SETTINGS, **extra)
        env: Any = VecNormalize(DummyVecEnv([make]))
        model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, policy_kwargs=relu)
        model.learn(32)
        lr_gym.export_policy(model, path)
        policy: Any = lr_gym.load_controller(path)
        seen = observations(env, 2_000)
        assert_same_actions(model, policy, seen, env.normalize_obs(seen))


def test_a_population_of_stable_baselines_is_an_environment_too(tmp_path: Path) -> None:
    runs = make_vec_env("LRTuning-markov-v0", 2, scale="tiny", **(SMALL | SETTINGS))
    model = PPO("MlpPolicy", runs, n_steps=8, batch_size=16, seed=7)
    path = tmp_path / "deep" / "policy.safetensors"
    lr_gym.export_policy(model, path, provenance={"note": "untrained"})
    facts = read_provenance(path)
    assert facts["algorithm"] == "PPO"
    assert facts["corpus"] == "markov"
    assert facts["max_iters"] == 40
    assert facts["seed"] == 7
    assert facts["note"] == "untrained"


@pytest.mark.parametrize("kind", ["ppo", "table"])
def test_the_same_run_gives_the_same_rates_in_the_environment_and_outside(
    kind: str, tmp_path: Path
) -> None:
    """Given the losses of an episode, the controller must repeat its decisions."""
    if kind == "ppo":
        env = small_env(**SETTINGS)
        model = ALGORITHMS["ppo"](env).learn(16)
        path = tmp_path / "policy.safetensors"
        lr_gym.export_policy(model, path)
        observation, info = env.reset(seed=3)
        infos, terminated = [info], False
        while not terminated:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, terminated, _, info = env.step(int(action))
            infos.append(info)
    else:
        agent = TabularQ(protocol="improved", episodes=2)
        env = small_env(**(agent.settings | {"max_iters": 40}))
        agent.train(env, 2)
        path = tmp_path / "table.json"
        agent.save(path)
        infos = run_episode(env, agent, seed=3, learning=False)

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=SMALL["learning_rate"])
    controller = PolicyLR(optimizer, path, interval=2, max_iters=40)
    for before, after in itertools.pairwise(infos):
        assert controller.needs_evaluation
        record = controller.step(before["val_loss"])
        assert record.learning_rate == after["learning_rate"]
        for _ in range(2):
            optimizer.step()
    rates = {info["learning_rate"] for info in infos}
    assert len(rates) > 1 or kind == "table"


@pytest.mark.parametrize("protocol", ["paper", "improved"])
@pytest.mark.parametrize("ties", ["keep", "first"])
def test_a_table_acts_the_same_on_random_observations(
    protocol: Any, ties: Any, tmp_path: Path
) -> None:
    agent = TabularQ(protocol=protocol, ties=ties)
    agent.finish()
    agent._decisions, agent.keep_action = 20, 1
    random = np.random.default_rng(0)
    count = 10_000
    seen = np.stack(
        [
            random.uniform(1.0, 4.0, count),
            10 ** random.uniform(-5, 0, count),
            random.integers(0, 21, count) / 20,
        ],
        axis=1,
    ).astype(np.float32)
    for row in seen[: count // 2]:  # half of the states are in the table, with ties
        values = random.integers(0, 3, 3).astype(float).tolist()
        agent.table[agent.state(row)] = values
    expected = [agent.act(row) for row in seen]
    assert set(expected) == {0, 1, 2}

    agent.save(tmp_path / "table.json")
    policy: Any = lr_gym.load_controller(tmp_path / "table.json")
    save_policy(policy, tmp_path / "table.safetensors", {"from": "a test"})
    again: Any = lr_gym.load_controller(tmp_path / "table.safetensors")
    for same in (policy, again):
        same.reset(20)
        assert [same.action(row) for row in seen] == expected


def test_a_rule_is_a_file_as_well(tmp_path: Path) -> None:
    path = tmp_path / "rule.safetensors"
    rule = RampAndUndo(start_factor=1 / 30, growth=1.6, max_lr=2.0)
    save_policy(rule, path)
    loaded = lr_gym.load_controller(path)
    assert isinstance(loaded, RampAndUndo)
    assert loaded.parameters == rule.parameters
    assert loaded.config == rule.config


def test_names_and_paths() -> None:
    assert lr_gym.load_controller("default").config.allow_undo
    assert not lr_gym.load_controller("default_without_undo").config.allow_undo
    named = "one of default, default_without_undo, update_size, ramp_and_undo, or"
    with pytest.raises(ValueError, match=named):
        lr_gym.load_controller("no_such_file.safetensors")
    with pytest.raises(TypeError, match="must be a name or a path"):
        lr_gym.load_controller(3)  # type: ignore[arg-type]  # the point


def test_reading_and_acting_need_neither_torch_nor_stable_baselines(
    tmp_path: Path,
) -> None:
    env = small_env(**SETTINGS)
    path = tmp_path / "policy.safetensors"
    lr_gym.export_policy(ALGORITHMS["ppo"](env), path)
    # The package itself imports torch; the modules that read and act must not.
    script = f"""
import sys, types, pathlib
for name in ("lr_gym", "lr_gym.controllers"):
    package = types.ModuleType(name)
    package.__path__ = [str(pathlib.Path({str(Path(lr_gym.__file__).parent.parent)!r}) /
                            name.replace(".", "/"))]
    sys.modules[name] = package
from lr_gym.controllers.policies.policy_file import load_controller
import numpy as np
policy = load_controller({str(path)!r})
print(policy.act(np.zeros(4, np.float32)).factor > 0)
print([m for m in ("torch", "stable_baselines3", "gymnasium") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["True", "[]"]


# ----------------------------------------------------------------- what is not exported


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    env = small_env(**SETTINGS)
    with pytest.raises(TypeError, match="it is recurrent, or uses gSDE"):
        lr_gym.export_policy(RecurrentPPO("MlpLstmPolicy", env, n_steps=8), path)
    elu = PPO("MlpPolicy", env, policy_kwargs={"activation_fn": torch.nn.ELU})
    with pytest.raises(TypeError, match="it has a ELU; allowed are Linear, Tanh, ReLU"):
        lr_gym.export_policy(elu, path)
    other = PPO("MlpPolicy", gym.make("CartPole-v1"))
    with pytest.raises(TypeError, match="env must be the learning-rate environment"):
        lr_gym.export_policy(other, path)
    with pytest.raises(ValueError, match="the model observes Box"):
        lr_gym.export_policy(other, path, env=env)
    wrapped = PPO("MlpPolicy", NormalizeObservation(env))
    with pytest.raises(ValueError, match="only VecNormalize can be exported"):
        lr_gym.export_policy(wrapped, path)
    assert not path.exists()
