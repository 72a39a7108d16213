"""All of Gymnasium's wrappers on simulated training, single and vector.

`SINGLE` and `VECTOR` say how each wrapper is made, or why it cannot apply. They must
list every wrapper of Gymnasium.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import vector

import lr_gym  # noqa: F401 - registers the environments

ENV_ID = "LRTuningSim-markov-tiny-v0"
IMAGES = {"render_mode": "rgb_array", "max_iters": 90}  # few steps: an image is slow
CONTINUOUS = {"action_type": "continuous"}
REALS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
NUM_ENVS = 2


@dataclass(frozen=True)
class Wrapped:
    """How a wrapper is made: its arguments, and the environment that it needs."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of `gym.make`."""
    below: Callable[[Any], Any] | None = None
    """The wrapper below, for one that needs images or a dictionary."""
    needs: str | None = None
    """A module that lr-gym does not install."""


def pixels(env: Any) -> Any:  # noqa: ANN401 - an environment
    """Return an environment that observes its own picture."""
    return wrappers.AddRenderObservation(env, render_only=True)


def state_and_pixels(env: Any) -> Any:  # noqa: ANN401 - an environment
    """Return an environment with a dictionary of state and picture."""
    return wrappers.AddRenderObservation(env, render_only=False)


def _plus_one(value: Any) -> Any:  # noqa: ANN401 - an array or a number
    return value + 1


def _torch_arrays() -> dict[str, Any]:
    import torch

    return {"env_xp": np, "target_xp": torch}


ATARI = "it needs an emulator of Atari's"
IMAGE = "it needs observations that are images"
DICTIONARY = "it needs observations that are dictionaries or tuples"
JAX = "it needs an environment that returns arrays of JAX"

SINGLE: dict[str, Wrapped | str] = {
    "AtariPreprocessing": ATARI,
    "DelayObservation": Wrapped({"delay": 2}),
    "DtypeObservation": Wrapped({"dtype": np.float64}),
    "DiscretizeObservation": Wrapped({"bins": 5}),
    "FilterObservation": Wrapped({"filter_keys": ["state"]}, IMAGES, state_and_pixels),
    "FlattenObservation": Wrapped(),
    "FrameStackObservation": Wrapped({"stack_size": 3}),
    "GrayscaleObservation": Wrapped({}, IMAGES, pixels),
    "TransformObservation": Wrapped({"func": _plus_one, "observation_space": REALS}),
    "MaxAndSkipObservation": Wrapped({"skip": 2}),
    "NormalizeObservation": Wrapped(),
    "AddRenderObservation": Wrapped({}, IMAGES),
    "ResizeObservation": Wrapped({"shape": (32, 32)}, IMAGES, pixels, needs="cv2"),
    "ReshapeObservation": Wrapped({"shape": (3, 1)}),
    "RescaleObservation": Wrapped(
        {"min_obs": np.float32(0.0), "max_obs": np.float32(1.0)}
    ),
    "TimeAwareObservation": Wrapped({}, {"max_episode_steps": 20}),
    "ClipAction": Wrapped({}, CONTINUOUS),
    "DiscretizeAction": Wrapped({"bins": 3}, CONTINUOUS),
    "TransformAction": Wrapped({"func": int, "action_space": None}),
    "RescaleAction": Wrapped(
        {"min_action": np.float32(-2.0), "max_action": np.float32(2.0)}, CONTINUOUS
    ),
    "StickyAction": Wrapped({"repeat_action_probability": 0.5}),
    "RepeatAction": Wrapped({"num_repeats": 2}),
    "ClipReward": Wrapped({"min_reward": -1.0, "max_reward": 1.0}),
    "TransformReward": Wrapped({"func": _plus_one}),
    "NormalizeReward": Wrapped(),
    "TimeLimit": Wrapped({"max_episode_steps": 5}),
    "Autoreset": Wrapped(),
    "PassiveEnvChecker": Wrapped(),
    "OrderEnforcing": Wrapped(),
    "RecordEpisodeStatistics": Wrapped(),
    "AddWhiteNoise": Wrapped({"probability_of_noise_per_pixel": 0.5}, IMAGES),
    "ObstructView": Wrapped(
        {"obstructed_pixels_ratio": 0.2, "obstruction_width": 8}, IMAGES
    ),
    "RenderCollection": Wrapped({}, IMAGES),
    "RecordVideo": Wrapped({"video_folder": "FOLDER"}, IMAGES, needs="moviepy"),
    "HumanRendering": Wrapped({}, IMAGES, needs="pygame"),
    "ArrayConversion": Wrapped(_torch_arrays(), needs="array_api_compat"),
    "JaxToNumpy": JAX,
    "JaxToTorch": JAX,
    "NumpyToTorch": Wrapped(needs="array_api_compat"),
}

VECTOR: dict[str, Wrapped | str] = {
    "VectorizeTransformObservation": Wrapped(
        {
            "wrapper": wrappers.TransformObservation,
            "func": _plus_one,
            "observation_space": REALS,
        }
    ),
    "VectorizeTransformAction": Wrapped(
        {"wrapper": wrappers.TransformAction, "func": int, "action_space": None}
    ),
    "VectorizeTransformReward": Wrapped(
        {"wrapper": wrappers.TransformReward, "func": _plus_one}
    ),
    "DictInfoToList": Wrapped(),
    "TransformObservation": Wrapped(
        {
            "func": _plus_one,
            "observation_space": batch_space(REALS, NUM_ENVS),
            "single_observation_space": REALS,
        }
    ),
    "FilterObservation": DICTIONARY,
    "FlattenObservation": Wrapped(),
    "GrayscaleObservation": IMAGE,
    "ResizeObservation": IMAGE,
    "ReshapeObservation": Wrapped({"shape": (3, 1)}),
    "RescaleObservation": Wrapped(
        {"min_obs": np.float32(0.0), "max_obs": np.float32(1.0)}
    ),
    "DtypeObservation": Wrapped({"dtype": np.float64}),
    "NormalizeObservation": Wrapped(),
    "TransformAction": Wrapped({"func": np.array}),
    "ClipAction": Wrapped({}, CONTINUOUS),
    "RescaleAction": Wrapped(
        {"min_action": np.float32(-2.0), "max_action": np.float32(2.0)}, CONTINUOUS
    ),
    "TransformReward": Wrapped({"func": _plus_one}),
    "ClipReward": Wrapped({"min_reward": -1.0, "max_reward": 1.0}),
    "NormalizeReward": Wrapped(),
    "RecordEpisodeStatistics": Wrapped(),
    "RecordVideo": Wrapped({"video_folder": "FOLDER"}, IMAGES, needs="moviepy"),
    "HumanRendering": Wrapped({}, IMAGES, needs="cv2"),
    "ArrayConversion": Wrapped(_torch_arrays(), needs="array_api_compat"),
    "JaxToNumpy": JAX,
    "JaxToTorch": JAX,
    "NumpyToTorch": Wrapped(needs="array_api_compat"),
}


def missing_wrappers() -> list[str]:
    """Return Gymnasium's wrappers that the tables lack, with their module."""
    known = (wrappers, SINGLE | {"vector": ""}), (vector, VECTOR)
    return [
        f"{module.__name__}.{name}"
        for module, table in known
        for name in module.__all__
        if name not in table
    ]


def run_single(name: str, wrapped: Wrapped) -> None:
    """Run an episode through a wrapper; raise an error if its results are wrong."""
    with tempfile.TemporaryDirectory() as folder:
        env: Any = gym.make(ENV_ID, **wrapped.settings)
        if wrapped.below is not None:
            env = wrapped.below(env)
        env = getattr(wrappers, name)(env, **_arguments(wrapped, folder))
        env.action_space.seed(0)
        observation, _ = env.reset(seed=0)
        _check_observation(name, observation, env.observation_space)
        ended, steps = False, 0
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(
                env.action_space.sample()
            )
            _check_observation(name, observation, env.observation_space)
            _check_finite(name, reward)
            ended, steps = bool(terminated or truncated), steps + 1
            if steps > 20:
                raise AssertionError(f"{name}: the episode does not end")
        if env.render_mode is not None:
            env.render()
        env.close()


def run_vector(name: str, wrapped: Wrapped) -> None:
    """Run more than an episode through a vector wrapper on one population."""
    with tempfile.TemporaryDirectory() as folder:
        envs: Any = gym.make_vec(ENV_ID, num_envs=NUM_ENVS, **wrapped.settings)
        decisions = envs.unwrapped.episodes.training.max_iters // 30
        envs = getattr(vector, name)(envs, **_arguments(wrapped, folder))
        envs.action_space.seed(0)
        observations, _ = envs.reset(seed=0)
        _check_observation(name, observations, envs.observation_space)
        ends = np.zeros(NUM_ENVS, dtype=int)
        for _ in range(decisions + 2):
            observations, rewards, terminated, truncated, _ = envs.step(
                envs.action_space.sample()
            )
            _check_observation(name, observations, envs.observation_space)
            _check_finite(name, rewards)
            ends += np.asarray(terminated) | np.asarray(truncated)
        envs.close()
        if not (ends == 1).all():
            raise AssertionError(f"{name}: episodes ended {ends} times, not once")


def _arguments(wrapped: Wrapped, folder: str) -> dict[str, Any]:
    return {k: folder if v == "FOLDER" else v for k, v in wrapped.arguments.items()}


def _check_observation(name: str, observation: Any, space: gym.Space[Any]) -> None:  # noqa: ANN401
    if hasattr(observation, "numpy"):  # a tensor
        observation = observation.numpy()
    if not space.contains(observation):
        raise AssertionError(f"{name}: observation {observation} is not in {space}")


def _check_finite(name: str, reward: Any) -> None:  # noqa: ANN401 - a number or an array
    if not np.isfinite(np.asarray(reward)).all():
        raise AssertionError(f"{name}: reward {reward}")
