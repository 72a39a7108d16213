"""Families of simulated runs, and a controller that learns on one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents import train_controller
from agents.agent import run_episode
from agents.baselines import RuleAgent
from agents.saved_policy import SavedPolicy
from agents.train_controller import Args
from benchmarks.comparison.methods import find_method
from lr_gym import load_controller
from lr_gym.controllers import (
    ActionPolicy,
    RampAndUndo,
    UpdateSizeRule,
    save_policy,
)

SETTINGS: dict[str, Any] = {
    "trainer": "surrogate",
    "scale": "tiny",
    "corpus": "shakespeare",
}
FAMILY = {"lr_factor": [1 / 30, 30], "max_iters": [300, 600]}


def curve(env: gym.Env, actions: list[int], **reset: Any) -> list[float]:
    losses = [env.reset(**reset)[1]["val_loss"]]
    return losses + [env.step(action)[4]["val_loss"] for action in actions]


def test_every_reset_is_another_run_and_a_seed_repeats_it() -> None:
    env = gym.make("LRTuningEnv-v0", family=FAMILY, **SETTINGS)
    drawn = []
    for seed in (0, 1, 2, 0):
        env.reset(seed=seed)
        drawn.append(env.unwrapped.episodes.instances[0])  # type: ignore[attr-defined]
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]
    assert {instance.max_iters for instance in drawn} <= {300, 600}


def test_a_drawn_run_is_the_run_of_an_environment_made_for_it() -> None:
    env = gym.make("LRTuningEnv-v0", family=FAMILY, **SETTINGS)
    chosen = {"lr_factor": 10.0, "max_iters": 300}
    options = {"seed": 5, "instance": chosen}
    losses = curve(env, [1, 0, 2], seed=0, options=options)
    rate = env.unwrapped.episodes.instances[0].learning_rate  # type: ignore[attr-defined]
    own = {"learning_rate": rate, "max_iters": 300, "eval_interval": 15}
    alone = gym.make("LRTuningEnv-v0", **SETTINGS, **own)
    assert losses == curve(alone, [1, 0, 2], seed=0, options={"seed": 5})


def test_many_are_those_of_one_by_one() -> None:
    envs = gym.make_vec("LRTuningEnv-v0", num_envs=3, family=FAMILY, **SETTINGS)
    env = gym.make("LRTuningEnv-v0", family=FAMILY, **SETTINGS)
    *_, infos = envs.reset(seed=[4, 5, 6])  # type: ignore[arg-type]  # ours takes both
    *_, after = envs.step(np.array([0, 1, 2]))
    for member, seed in enumerate((4, 5, 6)):
        losses = curve(env, [member], seed=seed)
        together = [infos["val_loss"][member], after["val_loss"][member]]
        assert losses == pytest.approx(together, abs=1e-12)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ({"corpora": ["shakespeare", "enwik8"]}, "no law of the loss for .*enwik8"),
        ({"n_embd": [64, 96]}, r"fitted at n_head=2, got 3|fitted at n_embd=64"),
    ],
)
def test_a_run_without_a_law_is_refused(family: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make("LRTuningEnv-v0", family=family, **SETTINGS)


def test_a_family_needs_runs_that_can_differ() -> None:
    law = (
        Path(train_controller.__file__).parents[1]
        / "lr_gym/surrogate/laws/shakespeare-tiny.json"
    )
    with pytest.raises(ValueError, match="or a mapping from each corpus to its law"):
        gym.make("LRTuningEnv-v0", family=FAMILY, trainer=str(law))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("controller")
    train_controller.main(Args(episodes=64, num_envs=32, checks=4, out=out))
    return out


@pytest.mark.slow
def test_a_controller_is_learned_judged_and_kept(learned: Path) -> None:
    report = json.loads((learned / "report.json").read_text())
    assert report["simulated_episodes"] >= 64
    losses = report["final_val_loss"]["surrogate"]
    rules = {"ramp_and_undo", "update_size", "keep"}
    assert set(losses) == {"controller", *rules}
    assert all(len(own) == 4 and np.isfinite(own).all() for own in losses.values())
    policy = load_controller(learned / "policy.safetensors")
    assert isinstance(policy, ActionPolicy)
    assert policy.config.allow_undo
    absolute = {"val_loss", "train_loss", "learning_rate", "log_learning_rate"}
    assert not absolute & set(policy.config.features)


@pytest.mark.slow
def test_a_saved_policy_joins_a_comparison_and_acts_as_it_does_elsewhere(
    learned: Path,
) -> None:
    path = learned / "policy.safetensors"
    agent = find_method(str(path)).make(0)
    assert isinstance(agent, SavedPolicy)
    env = gym.make("LRTuningEnv-v0", **{**SETTINGS, **agent.settings})
    trajectory = run_episode(env, agent, seed=0)
    policy = load_controller(path)
    assert isinstance(policy, ActionPolicy)
    observation, _ = env.reset(seed=0)
    for row in trajectory[1:]:
        action = policy.action(observation)
        assert action == row["action"]
        observation = env.step(action)[0]


@pytest.mark.parametrize("rule", [RampAndUndo(growth=1.5), UpdateSizeRule()])
def test_a_saved_rule_joins_a_comparison(
    tmp_path: Path, rule: RampAndUndo | UpdateSizeRule
) -> None:
    path = tmp_path / "rule.safetensors"
    save_policy(rule, path)
    agent = find_method(str(path)).make(0)
    assert isinstance(agent, RuleAgent)
    env = gym.make("LRTuningEnv-v0", **{**SETTINGS, **agent.settings})
    rates = [row["learning_rate"] for row in run_episode(env, agent, seed=0)]
    assert rates[1] == pytest.approx(rates[0] / 300, rel=1e-5)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is refused"):
        find_method(str(wrong))
