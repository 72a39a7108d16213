"""The vector environment equals single environments, in each autoreset mode."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lr_gym import LRTuningVectorEnv
from tests.helpers.small import SIMULATED, SMALL, small_env

MODES = list(AutoresetMode)


def make_vector(size: int = 3, **overrides: Any) -> LRTuningVectorEnv:
    return LRTuningVectorEnv(size, **({"scale": "tiny"} | SMALL | overrides))


def assert_equal_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for key, values in theirs.items():
        if isinstance(values, dict):
            assert_equal_infos(ours[key], values)
        elif key == "final_obs":
            for mine, their in zip(ours[key], values, strict=True):
                assert (mine is None) == (their is None)
                if their is not None:
                    np.testing.assert_allclose(mine, their, atol=1e-4)
        else:
            np.testing.assert_allclose(ours[key], values, atol=1e-4, err_msg=key)


# One member diverges at once, so that episodes end at different times.
UNEVEN = {"learning_rate": [1e-3, 900.0, 1e-3]}
WIDE = {"max_lr": 1e4, "max_iters": 36, "eval_interval": 12}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"allow_undo": True},
        {"dropout": 0.2},
        {"allow_undo": True, "decision_spacing": "dense_start", "dense_interval": 3},
        {"allow_undo": True, "action_type": "continuous", "max_log2_factor": 3.0},
    ],
    ids=str,
)
def test_it_equals_gymnasiums_sync_vector_env(
    mode: AutoresetMode, extra: dict[str, Any]
) -> None:
    ours = make_vector(3, autoreset_mode=mode, **WIDE, **extra)
    theirs: SyncVectorEnv = SyncVectorEnv(
        [lambda: small_env(**WIDE, **extra)] * 3, autoreset_mode=mode
    )
    first, infos = ours.reset(seed=5)
    second, expected = theirs.reset(seed=5)
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert_equal_infos(infos, expected)
    # From here on member 1 runs at a rate that diverges, in both.
    ours.episodes.state.learning_rate[1] = 900.0
    theirs.envs[1].unwrapped.episodes.state.learning_rate[0] = 900.0  # type: ignore[attr-defined]
    ours.action_space.seed(0)
    ends = set()
    for step in range(8):
        actions = ours.action_space.sample()
        mine, their = ours.step(actions), theirs.step(actions)
        a: Any
        b: Any
        for a, b in zip(mine[:4], their[:4], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
            assert a.dtype == b.dtype
            assert a.shape == b.shape
        assert_equal_infos(mine[4], their[4])
        ends |= {(step, int(member)) for member in np.flatnonzero(mine[2])}
    assert len({step for step, _ in ends}) > 1  # members did end at different times


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_step_limit_truncates_as_in_sync_vector_env(mode: AutoresetMode) -> None:
    """CartPole's vector environment takes `max_episode_steps`, too."""
    limit = {"scale": "tiny", "max_episode_steps": 2, **SMALL, **WIDE}
    ours = gym.make_vec("LRTuning-markov-v0", 3, autoreset_mode=mode, **limit)
    theirs = gym.make_vec(
        "LRTuning-markov-v0",
        3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **limit,
    )
    ours.reset(seed=5)
    theirs.reset(seed=5)
    seen = []
    for _ in range(7):
        mine, their = ours.step([1, 2, 0]), theirs.step([1, 2, 0])
        for a, b in zip(mine[:4], their[:4], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        assert_equal_infos(mine[4], their[4])
        seen.append(bool(mine[3].all()))
        assert not mine[2].any()
    period = 3 if mode is AutoresetMode.NEXT_STEP else 2
    assert seen == [(step + 1) % period == 2 % period for step in range(7)]


def test_a_step_limit_counts_each_members_episode() -> None:
    envs = make_vector(3, autoreset_mode="Disabled", max_episode_steps=2, **WIDE)
    envs.reset(seed=0)
    envs.step([1, 1, 1])
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    assert envs.step([1, 1, 1])[3].tolist() == [False, True, True]
    with pytest.raises(ResetNeeded, match=r"episodes \[1, 2\] have ended"):
        envs.step([1, 1, 1])


def test_an_id_registered_with_a_step_limit_makes_a_vector_env() -> None:
    spec = copy.deepcopy(gym.spec("LRTuning-markov-v0"))
    spec.max_episode_steps = 1
    envs = gym.make_vec(spec, 2, scale="tiny", **SMALL)
    envs.reset(seed=0)
    assert envs.step([1, 1])[3].all()


def test_with_autoreset_disabled_the_caller_resets() -> None:
    envs = make_vector(3, autoreset_mode="Disabled", **WIDE)
    envs.reset(seed=0, options=UNEVEN)
    _, _, terminated, _, infos = envs.step([1, 1, 1])
    assert terminated.tolist() == [False, True, False]
    assert infos["diverged"].tolist() == [False, True, False]
    with pytest.raises(ResetNeeded, match=r"episodes \[1\] have ended"):
        envs.step([1, 1, 1])
    _, infos = envs.reset(options={"reset_mask": terminated})
    assert infos["_iteration"].tolist() == [False, True, False]
    infos = envs.step([1, 1, 1])[-1]
    assert infos["iteration"].tolist() == [24, 12, 24]


@pytest.mark.parametrize("mode", MODES)
def test_make_vec_builds_one_population(mode: AutoresetMode) -> None:
    envs = gym.make_vec(
        "LRTuning-markov-v0",
        num_envs=4,
        scale="tiny",
        autoreset_mode=mode.value,
        **SMALL,
    )
    assert isinstance(envs.unwrapped, LRTuningVectorEnv)
    assert envs.metadata["autoreset_mode"] is mode
    assert envs.unwrapped.trainer.size == 4
    observations, _ = envs.reset(seed=0)
    assert observations in envs.observation_space
    envs.close()


def test_seeds_repeat_bit_for_bit_and_members_differ() -> None:
    envs = make_vector()
    runs = []
    for _ in range(2):
        steps = [envs.reset(seed=3)[0]]
        steps += [envs.step([2, 1, 0])[0] for _ in range(6)]  # across an autoreset
        runs.append(np.array(steps))
    assert np.array_equal(runs[0], runs[1])
    assert len(set(runs[0][0, :, 0])) == 3
    again = np.array(envs.reset(seed=[3, 4, 5])[0])
    assert np.array_equal(again, runs[0][0])


def test_options_may_differ_between_members() -> None:
    envs = make_vector()
    options = {"seed": [7, 7, 8], "learning_rate": [1e-3, 1e-2, 1e-3]}
    observations, infos = envs.reset(options=options)
    assert infos["seed"].tolist() == [7, 7, 8]
    assert infos["learning_rate"].tolist() == [1e-3, 1e-2, 1e-3]
    assert observations[0, 0] == observations[1, 0] != observations[2, 0]


def test_pickling_and_rendering() -> None:
    envs = make_vector(2, render_mode="ansi")
    unpickled = pickle.loads(pickle.dumps(envs))  # noqa: S301 - our own bytes
    with pytest.raises(ResetNeeded, match="nothing to render"):
        unpickled.render()
    unpickled.reset(seed=0)
    unpickled.step([1, 1])
    lines = unpickled.render()
    assert len(lines) == 2
    assert all(line.startswith("iteration      2/8") for line in lines)
    pictures = make_vector(2, render_mode="rgb_array")
    pictures.reset(seed=0)
    frames = pictures.render()
    assert frames is not None
    assert [frame.shape for frame in frames] == [(480, 640, 3)] * 2


BAD_RESETS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"seed": [1, 2]}, ValueError, "seed must have 3 entries, got 2"),
    ({"seed": 1.5}, TypeError, "seed must be None, an integer, or a list"),
    ({"seed": {1, 2, 3}}, TypeError, "seed must be None, an integer, or a list"),
    ({"options": [1]}, TypeError, "options must be a mapping"),
    ({"options": {"lr": 1}}, TypeError, "unknown key 'lr'"),
    ({"options": {"seed": [1, 2]}}, ValueError, "seed must have 3 entries"),
    ({"options": {"seed": [1, 2, -3]}}, ValueError, "seed must be in"),
    ({"options": {"learning_rate": [1, 1, 9]}}, ValueError, "learning_rate must be in"),
    ({"options": {"reset_mask": [True] * 3}}, TypeError, "must be a bool array"),
    ({"options": {"reset_mask": np.zeros(3, bool)}}, ValueError, "and a True"),
    ({"options": {"reset_mask": np.ones(2, bool)}}, ValueError, r"shape \(3,\)"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_RESETS)
def test_a_bad_reset_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_vector().reset(**arguments)


@pytest.mark.parametrize("actions", [[1, 1], [1, 1, 3], [[1, 1, 1]], [-1, 0, 0]])
def test_bad_actions_are_refused(actions: Any) -> None:
    envs = make_vector()
    with pytest.raises(ResetNeeded, match="call reset"):
        envs.step([1, 1, 1])
    envs.reset(seed=0)
    with pytest.raises(InvalidAction, match="actions must be in"):
        envs.step(actions)
    assert envs.step([1, 1, 1])[-1]["iteration"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "actions",
    [
        [1.7, 1, 1],
        np.array([1.0, 1.0, 1.0]),
        [True, False, True],
        ["1", "1", "1"],
        "up",
        [[1], [1, 1], [1]],
        [None] * 3,
        None,
        2**70,
    ],
    ids=str,
)
def test_actions_of_another_type_are_refused(actions: Any) -> None:
    """Floats used to be truncated: 1.7 was 1."""
    envs = make_vector()
    envs.reset(seed=0)
    with pytest.raises(InvalidAction, match="actions must be in MultiDiscrete"):
        envs.step(actions)


@pytest.mark.parametrize(
    "actions",
    [["0.5", "0.5"], [[True], [False]], [[None], [0.0]], [[1j], [0]], [[1e300], [0]]],
    ids=str,
)
def test_continuous_actions_of_another_type_are_refused(actions: Any) -> None:
    envs = make_vector(2, action_type="continuous")
    envs.reset(seed=0)
    with pytest.raises(InvalidAction, match="actions must be in Box"):
        envs.step(actions)


def test_seeds_and_options_may_be_numpys() -> None:
    envs = make_vector(2)
    seeds: list[Any] = [np.int64(3), np.array([3, 4]), [3, 4]]
    for seed in seeds:
        infos = envs.reset(seed=seed, options={"learning_rate": np.array(2e-3)})[1]
        assert infos["seed"].tolist() == envs.reset(seed=3)[1]["seed"].tolist()
        assert infos["learning_rate"].tolist() == [2e-3, 2e-3]


def test_bad_keywords_are_refused() -> None:
    with pytest.raises(ValueError, match="num_envs must be at most 1000000"):
        make_vector(10**7)
    with pytest.raises(ValueError, match="the product must be at most 100000000"):
        make_vector(10**5, **SIMULATED | {"max_iters": 10**6, "eval_interval": 10})
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        make_vector(0)
    with pytest.raises(ValueError, match="render_mode must be None or one of"):
        make_vector(render_mode="human")
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1"):
        make_vector(max_episode_steps=0)
    with pytest.raises(ValueError, match=r"autoreset_mode must be one of .*Never"):
        make_vector(autoreset_mode="Never")
    with pytest.raises(TypeError, match="did you mean 'lr_factors'"):
        make_vector(lr_factor=(1.0,))


def test_continuous_actions() -> None:
    envs = make_vector(2, action_type="continuous")
    envs.reset(seed=0)
    infos = envs.step(np.array([[1.0], [-0.5]], dtype=np.float32))[-1]
    assert infos["learning_rate"] == pytest.approx([2e-3, 1e-3 / math.sqrt(2)])
