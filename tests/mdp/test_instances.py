"""Instance families: sampling, and episodes in single and vector environments."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from lr_gym import (
    HELD_OUT,
    Instance,
    InstanceFamily,
    LRTuningVectorEnv,
    MixedTrainer,
    PopulationTrainer,
    load_corpus,
)
from lr_gym.envs.episodes import INFO_KEYS
from lr_gym.mdp.observations import FEATURES
from lr_gym.sb3 import make_vec_env
from tests.helpers.small import SIMULATED, SMALL, small_config, small_env

FAMILY: dict[str, Any] = {
    "n_layer": [1, 2],
    "n_embd": [16, 24],
    "batch_size": [4, 2],
    "max_iters": [8, 12, 16],
}
FIELDS: dict[str, Any] = {
    "corpora": ("markov", "shakespeare"),
    "n_layer": (1, 2),
    "n_embd": (16, 32),
    "batch_size": (4,),
    "max_iters": (8, 16),
    "good_lr": 1e-3,
    "good_lr_width": 16,
}


def family_env(**overrides: Any) -> gym.Env[Any, Any]:
    return small_env(**({"family": FAMILY} | overrides))


def instance_of(env: gym.Env[Any, Any]) -> Instance:
    found: Instance = env.unwrapped.episodes.instances[0]  # type: ignore[attr-defined]
    return found


# ---------------------------------------------------------------------------- drawing


def test_a_family_draws_every_choice_alike_and_rates_log_uniformly() -> None:
    family = InstanceFamily(**FIELDS)
    generator = np.random.default_rng(0)
    drawn = [family.sample(generator) for _ in range(2_000)]
    for name, field in (("corpus", "corpora"), ("n_embd",) * 2, ("max_iters",) * 2):
        counts = Counter(getattr(instance, name) for instance in drawn)
        assert set(counts) == set(FIELDS[field])
        assert all(900 < count < 1_100 for count in counts.values())
    logs = np.log([instance.lr_factor for instance in drawn]) / math.log(30)
    assert -1 <= logs.min() < -0.98
    assert 0.98 < logs.max() <= 1
    assert np.quantile(logs, (0.25, 0.5, 0.75)) == pytest.approx(
        [-0.5, 0, 0.5], abs=0.06
    )
    good = {instance.n_embd: instance.good_lr for instance in drawn}
    assert good == {16: 1e-3, 32: 5e-4}  # as 1 / width
    assert drawn[0].learning_rate == drawn[0].good_lr * drawn[0].lr_factor
    again = np.random.default_rng(0)
    assert [family.sample(again) for _ in range(2_000)] == drawn


def test_a_family_survives_json() -> None:
    family = InstanceFamily(**FIELDS)
    copy = InstanceFamily(**json.loads(json.dumps(dataclasses.asdict(family))))
    assert copy == family
    assert hash(copy) == hash(family)


def test_the_held_out_instances() -> None:
    assert len(HELD_OUT) == len(set(HELD_OUT)) == 28
    assert {i.corpus for i in HELD_OUT} == {"shakespeare", "text8", "markov"}
    for names in (("n_embd", "max_iters"), ("corpus", "n_embd"), ("lr_factor",)):
        counts = Counter(tuple(getattr(i, n) for n in names) for i in HELD_OUT)
        assert max(counts.values()) - min(counts.values()) <= 2  # balanced
    for instance in HELD_OUT:
        instance.training_config(small_config(n_embd=64))  # heads of 32, as at tiny
    assert math.isclose(sum(math.log(i.lr_factor) for i in HELD_OUT), 0, abs_tol=1e-9)


WRONG_FAMILIES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"n_embd": []}, TypeError, "n_embd must be a non-empty sequence"),
    ({"n_layer": 2}, TypeError, "n_layer must be a non-empty sequence, got 2"),
    ({"n_layer": [0]}, ValueError, "n_layer must be at least 1, got 0"),
    ({"batch_size": [4, 4]}, ValueError, "batch_size must not repeat"),
    ({"corpora": [1]}, TypeError, "corpora must be strings"),
    ({"lr_factor": [0, 1]}, ValueError, "lr_factor must be"),
    ({"lr_factor": [2, 1]}, ValueError, "the lowest and the highest"),
    ({"lr_factor": [1, 2, 3]}, ValueError, "the lowest and the highest"),
    ({"good_lr": "high"}, TypeError, "good_lr must be a number"),
    ({"widths": [1]}, TypeError, "family has an unknown key 'widths'"),
    ({"n_embd": [20]}, ValueError, "n_embd must be a multiple of the head size 8"),
    ({"max_iters": [2]}, ValueError, "max_iters=2 is too short for 4 decisions"),
    ({"max_iters": [4]}, ValueError, "must not be below warmup_iters=5, got 4"),
    ({"lr_factor": [1, 1e4]}, ValueError, r"learning_rate must be in \[min_lr"),
    ({"corpora": ["markvo"]}, ValueError, "did you mean 'markov'"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG_FAMILIES)
def test_a_wrong_family_is_refused_by_name(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small_env(family=given, warmup_iters=0 if given != {"max_iters": [4]} else 5)


def test_a_family_is_a_mapping() -> None:
    with pytest.raises(TypeError, match=r"dataclasses\.asdict\(family\)"):
        small_env(family=InstanceFamily(**FIELDS))


# ----------------------------------------------------------------- the environments


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"features": tuple(FEATURES)},
        {"action_type": "continuous", "allow_undo": True},
        {"decision_spacing": "dense_start", "dense_interval": 1},
    ],
    ids=str,
)
def test_the_checkers_pass_without_a_warning(extra: dict[str, Any]) -> None:
    env = family_env(**extra)
    check_env(env.unwrapped)
    check_env_sb3(env.unwrapped)


def test_every_reset_samples_and_a_seed_repeats_it() -> None:
    env = family_env()
    env.reset(seed=0)
    drawn = []
    for _ in range(20):
        _, info = env.reset()
        assert info["learning_rate"] == instance_of(env).learning_rate
        assert tuple(info) == INFO_KEYS
        drawn.append(instance_of(env))
    assert len({i.max_iters for i in drawn}) == 3
    assert len({i.n_embd for i in drawn}) == 2
    assert len({i.learning_rate for i in drawn}) == 20
    env.reset(seed=0)
    again = [(env.reset(), instance_of(env))[1] for _ in range(20)]
    assert again == drawn


def test_the_spec_survives_json_and_the_env_pickling() -> None:
    env = family_env()
    assert env.spec is not None
    copies = [
        gym.make(EnvSpec.from_json(env.spec.to_json())),
        pickle.loads(pickle.dumps(env.unwrapped)),  # noqa: S301 - our own bytes
    ]
    first = [env.reset(seed=4)[1], env.step(2)[-1]]
    for copy in copies:
        assert [copy.reset(seed=4)[1], copy.step(2)[-1]] == first


def test_without_a_family_nothing_is_sampled() -> None:
    env = small_env()
    env.reset(seed=1)
    alone = env.unwrapped.np_random.bit_generator.state
    family = small_env(family={"lr_factor": [1, 1]})
    _, first = family.reset(seed=1)
    _, same = env.reset(seed=1)
    assert first == same  # of one instance: the env's own run
    assert env.unwrapped.np_random.bit_generator.state == alone


def test_an_instance_trains_as_its_own_environment() -> None:
    env = family_env(base_schedule="wsd", warmup_iters=2)
    chosen = {
        "n_layer": 2,
        "n_embd": 24,
        "batch_size": 2,
        "max_iters": 16,
        "lr_factor": 3.0,
    }
    env.reset(options={"seed": 5, "instance": chosen})
    rate = instance_of(env).learning_rate
    assert rate == pytest.approx(3e-3 * 16 / 24)
    own = small_env(
        base_schedule="wsd", warmup_iters=2, n_layer=2, n_embd=24, n_head=3,
        batch_size=2, max_iters=16, eval_interval=4, learning_rate=rate,
    )  # fmt: skip
    own.reset(options={"seed": 5})
    for action in (2, 1, 0, 1):
        mine, theirs = env.step(action), own.step(action)
        assert np.array_equal(mine[0], theirs[0])
        assert mine[1:] == theirs[1:]
    assert mine[2]


def test_options_replace_sampled_fields_once() -> None:
    env = family_env()
    env.reset(seed=0)
    env.reset(options={"instance": {"max_iters": 24, "lr_factor": 2.0}})
    assert instance_of(env).max_iters == 24  # no choice of the family's
    infos = [env.step(1)[-1] for _ in range(4)]
    assert [info["iteration"] for info in infos] == [6, 12, 18, 24]
    assert infos[-1]["progress"] == 1.0
    drawn = [(env.reset(), instance_of(env))[1] for _ in range(3)]
    env.reset(seed=0)
    env.reset()
    assert [(env.reset(), instance_of(env))[1] for _ in range(3)] == drawn
    whole = dataclasses.replace(drawn[0], lr_factor=1.5)
    _, info = env.reset(options={"instance": whole, "learning_rate": 0.5})
    assert instance_of(env) == whole
    assert info["learning_rate"] == 0.5


BAD_OPTIONS: list[tuple[Any, type[Exception], str]] = [
    ({"depth": 3}, TypeError, "instance has an unknown key 'depth'"),
    ({"corpus": "text8"}, ValueError, "corpus must be one of the family's, markov"),
    ({"n_embd": 17}, ValueError, "n_embd must be a multiple of the head size"),
    ({"max_iters": 3}, ValueError, "max_iters=3 is too short"),
    ({"max_iters": 10**400}, ValueError, "max_iters must be at most"),
    ({"lr_factor": 1e9}, ValueError, "learning_rate must be in"),
    (3, TypeError, "instance must be a mapping of fields, got 3"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD_OPTIONS)
def test_a_bad_instance_is_refused(
    given: Any, error: type[Exception], message: str
) -> None:
    env = family_env()
    with pytest.raises(error, match=message):
        env.reset(options={"instance": given})
    with pytest.raises(TypeError, match="unknown key 'instance'"):
        small_env().reset(options={"instance": {}})


def test_a_law_simulates_no_other_model() -> None:
    settings = SIMULATED | {"max_iters": 40, "eval_interval": 10}
    env = small_env(family={}, **settings)
    for other in ({"n_layer": 7}, {"batch_size": 8}):
        with pytest.raises(ValueError, match="the law was fitted at"):
            env.reset(options={"instance": other})
    env.reset(options={"instance": {"max_iters": 80}})


def test_a_model_without_heads_may_be_narrower_than_n_head() -> None:
    family = {"n_embd": [8, 16]}
    settings = {"n_embd": 8, "n_head": 16, "architecture": "lstm", "family": family}
    small_env(**settings).reset(seed=0)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_members_of_all_shapes_equal_single_environments(
    mode: AutoresetMode,
) -> None:
    settings: dict[str, Any] = {"scale": "tiny", "allow_undo": True} | SMALL
    settings["family"] = FAMILY
    ours = LRTuningVectorEnv(4, autoreset_mode=mode, **settings)
    theirs: SyncVectorEnv = SyncVectorEnv(
        [lambda: family_env(allow_undo=True)] * 4, autoreset_mode=mode
    )
    first, _ = ours.reset(seed=2)
    second, _ = theirs.reset(seed=2)
    np.testing.assert_allclose(first, second, atol=1e-4)
    random = np.random.default_rng(0)
    shapes = set()
    for _ in range(11):
        actions = random.integers(0, 4, 4)
        mine, their = ours.step(actions), theirs.step(actions)
        a: Any
        b: Any
        for a, b in zip(mine[:4], their[:4], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        for key in INFO_KEYS:
            np.testing.assert_allclose(mine[4][key], their[4][key], atol=1e-4)
        assert ours.episodes.instances == [
            env.unwrapped.episodes.instances[0]  # type: ignore[attr-defined]
            for env in theirs.envs
        ]
        shapes |= {(i.n_layer, i.n_embd, i.batch_size) for i in ours.episodes.instances}
    assert len(shapes) > 4


def test_stable_baselines3_learns_on_a_family() -> None:
    from stable_baselines3 import PPO

    settings = {"scale": "tiny", "family": FAMILY} | SMALL
    envs = make_vec_env("LRTuning-markov-v0", 3, seed=0, **settings)
    model = PPO("MlpPolicy", envs, seed=0, device="cpu", n_steps=8, batch_size=24)
    model.learn(24)
    assert model.ep_info_buffer is not None
    assert model.ep_info_buffer[-1]["l"] == 4


def test_rendering_names_the_instances_own_horizon() -> None:
    envs = LRTuningVectorEnv(
        2, scale="tiny", family=FAMILY, render_mode="ansi", **SMALL
    )
    envs.reset(seed=0, options={"instance": [{"max_iters": 8}, {"max_iters": 16}]})
    envs.step([1, 1])
    lines = envs.render()
    assert lines is not None
    assert [line.split()[1] for line in lines] == ["2/8", "4/16"]


# ------------------------------------------------------------------- the mixed trainer


def mixed(size: int = 3) -> tuple[MixedTrainer, list[Any]]:
    shapes = [small_config(n_embd=width, n_head=2) for width in (16, 24)]
    corpus = load_corpus("markov")
    trainer = MixedTrainer(
        shapes[0], lambda shape: PopulationTrainer(shape, corpus, size), size
    )
    return trainer, shapes


def test_a_member_restores_bit_for_bit_and_only_to_its_own_shape() -> None:
    trainer, shapes = mixed()
    trainer.choose([1], [shapes[1]])
    trainer.reset([0, 1, 2], [0, 1, 2])
    rates = np.full(3, 1e-3)
    trainer.train(3, rates)
    kept = trainer.snapshot([1, 2])
    counted: list[int] = []
    first = trainer.train([4, 2, 1], rates, lambda: counted.append(1))
    assert len(counted) == 4
    trainer.restore([1, 2], kept)
    assert trainer.telemetry()["tokens"].tolist() == [7 * 64, 3 * 64, 3 * 64]
    again = trainer.train([0, 2, 1], [1e-2, 1e-3, 1e-3])
    assert trainer.telemetry()["learning_rate"].tolist() == [1e-3] * 3
    assert np.isnan(again[0])
    assert again[1:].tolist() == first[1:].tolist()
    with pytest.raises(ValueError, match="member 0 has another shape"):
        trainer.restore([0], trainer.snapshot([1]))


def test_unused_shapes_are_dropped() -> None:
    made = []
    corpus = load_corpus("markov")

    def make(shape: Any) -> PopulationTrainer:
        made.append(shape.n_layer)
        return PopulationTrainer(shape, corpus, 1)

    trainer = MixedTrainer(small_config(n_layer=1), make, 1)
    for depth in (2, 1, 2, 3, 4, 5, 6, 1, 2):
        trainer.choose([0], [small_config(n_layer=depth)])
    # 1 and 2 were made once while both were in the cache, again when others had come.
    assert made == [1, 2, 3, 4, 5, 6, 1, 2]
