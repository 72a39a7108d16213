"""The adapter to stable-baselines3: equal to DummyVecEnv."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from lr_gym import LRTuningVectorEnv
from lr_gym.sb3 import LRTuningVecEnv, make_vec_env
from tests.helpers.small import SMALL, small_env

SETTINGS: dict[str, Any] = {"scale": "tiny"} | SMALL


def population(size: int = 3, **overrides: Any) -> LRTuningVecEnv:
    settings = SETTINGS | {"autoreset_mode": "SameStep"} | overrides
    return LRTuningVecEnv(LRTuningVectorEnv(size, **settings))


def assert_same(ours: Any, theirs: Any) -> None:
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, atol=1e-4, err_msg=key)


def test_it_equals_dummy_vec_env() -> None:
    ours = population()
    theirs = DummyVecEnv([small_env] * 3)
    for env in (ours, theirs):
        env.seed(7)
    a: Any = ours.reset()
    b: Any = theirs.reset()
    np.testing.assert_allclose(a, b, atol=1e-4)
    random = np.random.default_rng(0)
    for _ in range(10):  # two ends and a half
        actions = random.integers(0, 3, 3)
        mine, their = ours.step(actions), theirs.step(actions)
        for a, b in zip(mine[:3], their[:3], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
            assert a.dtype == b.dtype
        for row, expected in zip(mine[3], their[3], strict=True):
            assert_same(row, expected)
        for row, expected in zip(ours.reset_infos, theirs.reset_infos, strict=True):
            assert_same(row, expected)


def test_options_are_used_once_and_for_all_members() -> None:
    envs = population()
    envs.set_options([{"learning_rate": 1e-3 * (e + 1)} for e in range(3)])
    assert envs.reset()[:, 1] == pytest.approx([1e-3, 2e-3, 3e-3])
    assert envs.reset()[:, 1] == pytest.approx([1e-3] * 3)
    envs.set_options([{"seed": 1}, {}, {}])
    with pytest.raises(ValueError, match="'seed' must be given to all members or none"):
        envs.reset()


def test_attributes_and_methods() -> None:
    envs = population(render_mode="rgb_array")
    envs.reset()
    assert envs.get_attr("keep_action") == [1, 1, 1]
    assert envs.get_attr("num_envs", indices=[0, 2]) == [3, 3]
    assert len(envs.env_method("render", indices=1)) == 1
    assert [image.shape for image in envs.get_images() if image is not None] == [
        (480, 640, 3)
    ] * 3
    assert envs.env_is_wrapped(VecNormalize) == [False] * 3  # type: ignore[arg-type]  # any class will do
    with pytest.raises(AttributeError, match="cannot set 'x' on single members"):
        envs.set_attr("x", 1)


def test_methods_act_on_the_chosen_members_alone() -> None:
    """`env_method("reset", indices=[1])` used to reset every member."""
    ours = population()
    theirs = DummyVecEnv([small_env] * 3)
    keywords = {"seed": 3, "options": {"learning_rate": 2e-3}}
    results: list[list[Any]] = []
    for env in (ours, theirs):
        env.seed(7)
        env.reset()
        env.step(np.array([2, 2, 2]))
        results.append(env.env_method("reset", indices=[1], **keywords))
        results[-1] += env.env_method("reset", indices=2)
        step: Any = env.step(np.array([1, 0, 2]))
        observations, infos = step[0], step[3]
        results[-1] += [(observations[e], infos[e]) for e in range(3)]
        assert [info["iteration"] for info in infos] == [4, 2, 2]
    for (mine, info), (their, expected) in zip(*results, strict=True):
        np.testing.assert_allclose(mine, their, atol=1e-4)
        assert_same(info, expected)


def test_attributes_are_those_of_single_environments() -> None:
    ours = population(render_mode="rgb_array")
    theirs = DummyVecEnv([partial(small_env, render_mode="rgb_array")] * 3)
    for env in (ours, theirs):
        env.seed(7)
        env.reset()
    for name in ("action_space", "observation_space", "render_mode", "keep_action"):
        assert ours.get_attr(name, indices=[2]) == theirs.get_attr(name, indices=[2])
    for env in (ours, theirs):
        (frame,) = env.env_method("render", indices=[0])
        assert frame.shape == (480, 640, 3)
    draws = [env.get_attr("np_random")[1].random() for env in (ours, theirs)]
    assert draws[0] == draws[1]
    assert ours.env_method("close") == [None] * 3
    assert not ours.has_attr("unknown")
    with pytest.raises(AttributeError, match="cannot call 'step' of single members"):
        ours.env_method("step", 1, indices=[0])


def test_members_must_all_be_reset_before_a_step() -> None:
    envs = population(render_mode="ansi")
    envs.env_method("reset", indices=[1])
    with pytest.raises(ResetNeeded, match=r"episodes \[0, 2\] .* call reset"):
        envs.step(np.array([1, 1, 1]))
    with pytest.raises(ResetNeeded, match="nothing to render"):
        envs.env_method("render", indices=[0])
    assert "iteration" in envs.env_method("render", indices=[1])[0]


def test_an_id_may_name_its_module() -> None:
    envs = make_vec_env("lr_gym:LRTuningSim-markov-tiny-v0", 2, seed=0)
    assert np.asarray(envs.reset()).shape == (2, 3)


def test_another_autoreset_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="needs autoreset_mode='SameStep'"):
        population(autoreset_mode="NextStep")
    with pytest.raises(TypeError, match="is not a learning-rate environment"):
        make_vec_env("CartPole-v1", 2)
    with pytest.raises(TypeError, match="env_id must be a string, got 3"):
        make_vec_env(3, 2)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="seed must be an integer, got"):
        make_vec_env("LRTuningSim-markov-tiny-v0", 2, seed=[1])  # type: ignore[arg-type]
    with pytest.raises(ImportError, match="the module of env_id='no_such:x-v0'"):
        make_vec_env("no_such:x-v0", 2)


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_agents_train_and_episodes_are_monitored(algorithm: Any) -> None:
    envs = make_vec_env("LRTuning-markov-v0", 4, seed=0, **SETTINGS)
    on_policy = {} if algorithm is DQN else {"n_steps": 16}
    model = algorithm("MlpPolicy", envs, seed=0, device="cpu", **on_policy)
    model.learn(64)
    assert model.num_timesteps >= 64
    episode = model.ep_info_buffer[-1]
    assert episode["l"] == 4
    assert np.isfinite(episode["r"])


def test_the_package_imports_without_stable_baselines3() -> None:
    script = (
        "import sys\n"
        "sys.modules['stable_baselines3'] = None\n"
        "import lr_gym\n"
        "try:\n"
        "    import lr_gym.sb3\n"
        "except ImportError as error:\n"
        "    assert 'lr-gym[agents]' in str(error), error\n"
        "    print('refused')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "refused\n"
