"""Simulated runs: the environment over a law, and over a user's trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from safetensors.numpy import load, save
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from lr_gym import (
    LossLaw,
    LRTuningEnv,
    LRTuningVectorEnv,
    SurrogateTrainer,
    load_law,
    preset,
)
from lr_gym.mdp.observations import FEATURES
from lr_gym.surrogate.law_files import packaged_law
from tests.helpers.laws import make_constants, make_law
from tests.helpers.scripted import ScriptedTrainer
from tests.helpers.simulated import NOISY, make_trainer
from tests.helpers.small import small_trainer

TINY: dict[str, Any] = {"trainer": "surrogate", "scale": "tiny"}


def make_env(**settings: Any) -> gym.Env[Any, Any]:
    return gym.make("LRTuning-shakespeare-v0", **(TINY | settings))


def play(env: gym.Env[Any, Any], actions: list[int], **reset: Any) -> list[Any]:
    steps: list[Any] = [env.reset(**reset)]
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2]:
            break
    return steps


# --------------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"allow_undo": True},
        {"action_type": "continuous"},
        {"features": tuple(FEATURES)},
        {"decision_spacing": "dense_start"},
        {"base_schedule": "wsd"},
        {"reward": "log_loss_reduction"},
    ],
    ids=str,
)
def test_the_checkers_pass(settings: dict[str, Any]) -> None:
    env = make_env(**settings).unwrapped
    check_env(env)
    check_env_sb3(env)


def test_no_text_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LR_GYM_DATA", str(tmp_path))
    monkeypatch.setenv("LR_GYM_CACHE", str(tmp_path))
    assert play(make_env(), [1] * 20, seed=0)[-1][2]


def test_seeds_repeat_and_differ() -> None:
    actions = np.random.default_rng(0).integers(0, 3, 20).tolist()
    first, second, other = (
        str(play(make_env(max_lr=0.1), actions, seed=seed)) for seed in (3, 3, 4)
    )
    assert first == second != other


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_members_equal_single_environments(schedule: str) -> None:
    size, random = 5, np.random.default_rng(1)
    settings = TINY | {"base_schedule": schedule, "allow_undo": True, "max_lr": 0.2}
    envs = LRTuningVectorEnv(size, corpus="shakespeare", **settings)
    singles = [make_env(**settings) for _ in range(size)]
    observations, _ = envs.reset(seed=7)
    for member, env in enumerate(singles):
        assert np.array_equal(env.reset(seed=7 + member)[0], observations[member])
    for _ in range(20):
        actions = random.integers(0, 4, size)
        observations, rewards, terminated, _, infos = envs.step(actions)
        for member, env in enumerate(singles):
            alone = env.step(actions[member])
            assert np.array_equal(alone[0], observations[member])
            assert alone[1] == rewards[member]
            assert alone[2] == terminated[member]
            assert alone[4]["train_loss"] == infos["train_loss"][member]
    assert terminated.all()


def test_schedules_order_as_they_do_in_training() -> None:
    def final(schedule: str, rate: float) -> float:
        envs = LRTuningVectorEnv(
            32, corpus="shakespeare", base_schedule=schedule, learning_rate=rate, **TINY
        )
        envs.reset(seed=0)
        for _ in range(20):
            *_, infos = envs.step(np.full(32, envs.keep_action))
        return float(infos["val_loss"].mean())

    assert final("wsd", 3e-3) < final("constant", 3e-3) - 0.01
    assert final("cosine", 3e-3) < final("cosine", 3e-4) - 0.1
    assert final("constant", 0.1) > final("constant", 3e-3) + 0.5


def test_a_huge_rate_ends_as_diverged() -> None:
    env = make_env(learning_rate=1e3, max_lr=1e4, features=tuple(FEATURES))
    observation, reward, terminated, truncated, info = play(env, [1, 1], seed=0)[-1]
    assert (terminated, truncated, info["diverged"]) == (True, False, True)
    assert observation in env.observation_space
    assert np.isfinite(reward)


def test_the_spec_survives_json() -> None:
    env = make_env()
    assert env.spec is not None
    copy = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert str(play(env, [2, 1], seed=0)) == str(play(copy, [2, 1], seed=0))


def test_a_users_law_by_path_and_by_object(tmp_path: Path) -> None:
    law = make_law(**NOISY)
    path = str(tmp_path / "mine.json")
    law.save(path)
    runs = [
        str(play(gym.make("LRTuningEnv-v0", trainer=trainer), [1, 2], seed=0))
        for trainer in (path, tmp_path / "mine.json", load_law(path), law)
    ]
    assert len(set(runs)) == 1
    env = gym.make("LRTuningEnv-v0", trainer=path, corpus="markov", scale="tiny")
    assert env.spec is not None
    assert json.loads(env.spec.to_json())["kwargs"]["trainer"] == path
    for wrong in ({"corpus": "text8"}, {"scale": "mini"}):
        with pytest.raises(ValueError, match="the law was fitted at"):
            LRTuningEnv(trainer=law, **wrong)  # type: ignore[arg-type]  # both strings


@pytest.mark.parametrize("corpus", ["markov", "shakespeare", "text8"])
def test_by_default_the_scale_is_mini(corpus: str) -> None:
    env = gym.make(f"LRTuning-{corpus}-v0", trainer="surrogate")
    assert env.unwrapped.episodes.training.scale == "mini"  # type: ignore[attr-defined]


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"corpus": "enwik8"},
        ValueError,
        r"no law .* corpus 'enwik8' at scale 'tiny'; .*"
        r"shakespeare at tiny.*benchmarks.surrogate.fitting",
    ),
    ({"n_layer": 3}, ValueError, "the law was fitted at n_layer=2, got 3"),
    ({"dropout": 0.1}, ValueError, "the law was fitted at dropout=0.0, got 0.1"),
    ({"scale": "huge"}, ValueError, "scale must be one of auto"),
    ({"trainer": "surogate"}, ValueError, "trainer must be 'real', 'surrogate'"),
    ({"trainer": 3}, TypeError, "int lacks reset, train"),
    ({"trainer": "absent.json"}, FileNotFoundError, "absent.json"),
    ({"lr_factor": (1.0,)}, TypeError, "did you mean 'lr_factors'"),
    ({"learning_rate": 2.0}, ValueError, r"learning_rate must be in \[min_lr, max_lr"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD)
def test_wrong_settings_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LRTuningEnv(**({"corpus": "shakespeare"} | TINY | settings))


def test_runs_longer_than_those_of_the_law_warn() -> None:
    settings: dict[str, Any] = {"trainer": "surrogate", "scale": "tiny"}
    with pytest.warns(UserWarning, match=r"max_iters=10000, but .* 600 iterations"):
        gym.make("LRTuning-markov-v0", max_iters=10_000, **settings)
    with pytest.warns(UserWarning, match="max_iters=900"):
        gym.make("LRTuning-markov-v0", family={"max_iters": [300, 900]}, **settings)


# ------------------------------------------------------------------- a user's trainer


def test_your_training_as_an_environment() -> None:
    losses = [[3.0, 2.0, 1.5, 1.0], [3.0, 2.5, 2.0, 1.0]]
    settings: dict[str, Any] = {
        "max_iters": 6,
        "eval_interval": 2,
        "warmup_iters": 0,
        "learning_rate": 0.1,
    }
    env = gym.make("LRTuningEnv-v0", trainer=ScriptedTrainer(losses[:1]), **settings)
    steps = play(env, [1, 1, 1], seed=0)
    assert [step[1] for step in steps[1:]] == pytest.approx([1.0, 0.5, 0.5])
    assert steps[-1][2]
    envs = gym.make_vec(
        "LRTuningEnv-v0", num_envs=2, trainer=ScriptedTrainer(losses), **settings
    )
    envs.reset(seed=0)
    assert envs.step(np.array([1, 1]))[1] == pytest.approx([1.0, 0.5])
    real = small_trainer()
    env = gym.make("LRTuningEnv-v0", trainer=real, **settings)
    assert play(env, [1], seed=0)[-1][-1]["iteration"] == 2
    assert env.unwrapped.trainer is real  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_layer": 2}, TypeError, "with your own trainer .*'n_layer'"),
        ({"scale": "tiny"}, ValueError, "scale is for lr-gym's own training"),
        ({"max_iters": 0}, ValueError, "max_iters must be at least 1"),
    ],
)
def test_settings_that_a_users_trainer_does_not_take(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LRTuningEnv(trainer=ScriptedTrainer([[3.0, 2.0]]), **settings)


def test_a_trainer_of_the_wrong_shape_is_refused() -> None:
    two = ScriptedTrainer([[3.0, 2.0], [3.0, 2.0]])
    with pytest.raises(ValueError, match=r"trainer\.size must be .* 1, got 2"):
        LRTuningEnv(trainer=two)
    two.size = "two"  # type: ignore[assignment]  # the mistake under test
    with pytest.raises(TypeError, match=r"trainer\.size must be an integer"):
        LRTuningEnv(trainer=two)


# -------------------------------------------------------------------------- the trainer


def test_a_member_depends_on_its_own_seed_alone() -> None:
    rates = np.array([1e-3, 3e-3, 1e-2])
    company, alone = make_trainer(3), make_trainer()
    alone.reset([0], [2])
    losses = [company.train([3, 1, 5], rates)[2], company.evaluate()[2]]
    mine = [alone.train(5, rates[2:])[0], alone.evaluate()[0]]
    assert losses == mine
    same = make_trainer(2)
    same.reset([0, 1], [9, 9])
    first, second = same.train(7, [1e-3, 1e-3])
    assert first == second


def test_no_iterations_change_nothing() -> None:
    trainer = make_trainer(2)
    trainer.train(10, [1e-3, 1e-3])
    before = trainer.state_dict()
    losses = trainer.train([0, 5], [1.0, 1e-3])
    assert np.isnan(losses[0])
    after = trainer.state_dict()
    assert all(after[name][0] == before[name][0] for name in before)
    assert after["iteration"].tolist() == [10, 15]


def test_evaluation_repeats_and_leaves_no_trace() -> None:
    trainer, other = make_trainer(2), make_trainer(2)
    for each in (trainer, other):
        each.train(10, [1e-3, 1e-2])
    assert np.array_equal(trainer.evaluate(), trainer.evaluate())
    assert trainer.evaluate(members=[1])[0] == trainer.evaluate()[1]
    assert np.array_equal(trainer.train(5, [1e-3] * 2), other.train(5, [1e-3] * 2))


def test_snapshots_continue_bit_for_bit_also_from_a_file() -> None:
    trainer = make_trainer(3)
    trainer.train(20, [1e-3, 3e-3, 1e-2])
    kept = load(save(trainer.state_dict()))
    expected = [trainer.train(10, [1e-3] * 3), trainer.evaluate()]
    trainer.load_state_dict(kept)
    again = [trainer.train(10, [1e-3] * 3), trainer.evaluate()]
    assert np.array_equal(expected, again)
    fresh = make_trainer(3)
    fresh.load_state_dict(kept)
    assert np.array_equal(fresh.train(10, [1e-3] * 3), expected[0])
    with pytest.raises(ValueError, match=r"state\['progress'\] must have shape \(2,\)"):
        trainer.restore([0, 1], kept)
    with pytest.raises(ValueError, match="got None"):
        trainer.restore([0, 1, 2], {})


def test_undo_removes_damage_but_not_the_iterations() -> None:
    trainer = make_trainer(jitter=0.0)
    trainer.train(100, [1e-3])
    kept, good = trainer.snapshot([0]), trainer.evaluate()[0]
    trainer.train(30, [0.1])
    assert trainer.evaluate()[0] > good + 0.3
    trainer.restore([0], kept, rewind=False)
    assert trainer.evaluate()[0] == good
    assert trainer.iteration[0] == 130


def test_a_rate_above_the_divergence_rate_freezes_a_member() -> None:
    trainer = make_trainer(2)
    losses = trainer.train(5, [1e-3, 1e3])
    assert np.isfinite(losses).tolist() == [True, False]
    assert trainer.diverged().tolist() == [False, True]
    frozen = trainer.state_dict()["progress"][1]
    assert np.isnan(trainer.train(5, [1e-3, 1e-3])[1])
    assert trainer.state_dict()["progress"][1] == frozen
    trainer.reset([1], [5])
    assert not trainer.diverged().any()


def test_telemetry_and_losses_have_the_spread_of_the_law() -> None:
    size = 4_000
    trainer = make_trainer(size, grad_norm=(0.1, 0.2, 0.0, 0.0), tolerance_spread=0.0)
    trainer.train(100, np.full(size, 1e-3))
    telemetry = trainer.telemetry()
    assert telemetry["tokens"][0] == 100 * 16 * 32
    expected = np.exp(0.1 + 0.2 * np.log(1e-3))
    assert telemetry["grad_norm"] == pytest.approx(np.full(size, expected))
    assert telemetry["update_size"] == pytest.approx(np.full(size, 1e-3))
    assert (telemetry["seconds"] > 0).all()
    assert (trainer.telemetry(("tokens",))["tokens"] == telemetry["tokens"]).all()
    assert set(trainer.telemetry(("grad_norm", "tokens"))) >= {"grad_norm", "tokens"}
    efficiency = np.log(trainer.state_dict()["efficiency"])
    assert efficiency.mean() == pytest.approx(0.0, abs=0.003)
    assert efficiency.std() == pytest.approx(0.05, rel=0.05)
    noise = trainer.evaluate() - trainer.state_dict()["loss"]
    assert noise.std() == pytest.approx(0.2 * np.sqrt(1e-3), rel=0.05)


@pytest.mark.parametrize(
    ("iterations", "rates", "message"),
    [
        (5, [1e-3, -1e-3], "finite and not negative, got .*-0.001"),
        (5, [1e-3, np.nan], "finite and not negative, got .*nan"),
        (5, [1e-3] * 3, r"must have shape \(2,\)"),
        (5, np.ones((2, 4)), r"must have shape \(2,\) or \(2, n >= 5\)"),
        (-1, [1e-3] * 2, "iterations must be integers >= 0"),
        (1.5, [1e-3] * 2, "iterations must be integers >= 0"),
    ],
)
def test_wrong_chunks_are_refused(iterations: Any, rates: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(2).train(iterations, rates)


def test_wrong_populations_are_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1"):
        SurrogateTrainer(make_law(), 0)
    with pytest.raises(TypeError, match="law must be a LossLaw"):
        SurrogateTrainer("shakespeare", 1)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="2 members but 1 seeds"):
        make_trainer(2).reset([0, 1], [0])
    with pytest.raises(TypeError, match="training must be a TrainingConfig"):
        LossLaw(
            training={},  # type: ignore[arg-type]  # the mistake under test
            constants=make_constants(),
            lowest_rate=1e-4,
            highest_rate=1.0,
        )


def test_the_law_is_of_the_preset() -> None:
    law = packaged_law("shakespeare", "tiny")
    assert law.training == preset("tiny", "shakespeare")
