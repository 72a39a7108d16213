"""stable-baselines3's VecEnv over one population of training runs.

    from lr_gym.sb3 import make_vec_env
    model = PPO("MlpPolicy", make_vec_env("LRTuning-markov-v0", 8, scale="tiny"))

Needs stable-baselines3: ``pip install 'lr-gym[agents]'``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from lr_gym.envs.vector import LRTuningVectorEnv
from lr_gym.trainers.base import mask_of
from lr_gym.validation import check_integer

try:
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecMonitor
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
except ImportError as error:
    raise ImportError(
        "lr_gym.sb3 needs stable-baselines3: pip install 'lr-gym[agents]'"
    ) from error


class LRTuningVecEnv(VecEnv):
    """A VecEnv with the results of `DummyVecEnv` over single environments.

    All members share one environment, `envs`. `get_attr` and `env_method` treat each
    member as a single environment; `set_attr` raises an error.
    """

    def __init__(self, envs: LRTuningVectorEnv) -> None:
        """Wrap `envs`.

        Raises:
            ValueError: The `autoreset_mode` of `envs` is not ``SameStep``, which
                stable-baselines3 needs.
        """
        if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                "stable-baselines3 needs autoreset_mode='SameStep', got "
                f"{envs.autoreset_mode.value!r}; lr_gym.sb3.make_vec_env sets it"
            )
        self.envs = envs
        super().__init__(
            envs.num_envs, envs.single_observation_space, envs.single_action_space
        )
        self.metadata = envs.metadata

    def reset(self) -> NDArray[np.float32]:
        """Reset all members; seeds and options apply to this reset only."""
        options: dict[str, Any] = {}
        for name in sorted({name for member in self._options for name in member}):
            if not all(name in member for member in self._options):
                raise ValueError(
                    f"option {name!r} must be given to all members or none"
                )
            options[name] = [member[name] for member in self._options]
        observations, infos = self.envs.reset(seed=self._seeds, options=options)
        self.reset_infos = self._split(infos)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember the actions for `step_wait`."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[Any]]:
        """Take the actions; ended members return their next episode's observation."""
        observations, rewards, terminated, truncated, infos = self.envs.step(
            self._actions
        )
        ended = terminated | truncated
        final_obs = infos.pop("final_obs", None)
        final_info = infos.pop("final_info", None)
        infos = {k: v for k, v in infos.items() if not k.startswith("_final")}
        member_infos = self._split(infos)
        final_infos = self._split(final_info) if ended.any() else member_infos
        for member in np.flatnonzero(ended):
            self.reset_infos[member] = member_infos[member]
            member_infos[member] = final_infos[member]
            member_infos[member]["terminal_observation"] = final_obs[member]
        only_truncated = (truncated & ~terminated).tolist()
        for info, value in zip(member_infos, only_truncated, strict=True):
            info["TimeLimit.truncated"] = value
        return observations, rewards.astype(np.float32), ended, member_infos

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return one image per member; `None` without ``render_mode="rgb_array"``."""
        if self.envs.render_mode != "rgb_array":
            return [None] * self.num_envs
        return list(self.envs.render() or ())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each member; see `_Member`."""
        return [
            getattr(_Member(self.envs, member), attr_name)
            for member in self._get_indices(indices)
        ]

    def set_attr(
        self, attr_name: str, value: object, indices: VecEnvIndices = None
    ) -> None:
        """Raise AttributeError, because the members share one environment."""
        raise AttributeError(
            f"cannot set {attr_name!r} on single members: they share one environment; "
            "pass settings to make_vec_env, or options to reset"
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of each member; see `_Member`."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(
        self,
        wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """Return False per member: members have no wrappers."""
        return [False for _ in self._get_indices(indices)]

    def _split(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        """Return one dictionary of Python numbers per member."""
        columns = {k: v.tolist() for k, v in infos.items() if not k.startswith("_")}
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]


class _Member:
    """One member of a population, with the attributes of a single environment.

    Other attributes that are not methods, such as `keep_action`, are the population's.
    """

    def __init__(self, envs: LRTuningVectorEnv, member: int) -> None:
        self._envs = envs
        self._member = member
        self.observation_space = envs.single_observation_space
        self.action_space = envs.single_action_space

    @property
    def np_random(self) -> np.random.Generator:
        """The generator of this member's run seeds."""
        return self._envs.generators[self._member]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Reset this member only; see `LRTuningEnv.reset`."""
        mask = mask_of([self._member], self._envs.num_envs)
        seeds: list[int | None] = [None] * self._envs.num_envs
        seeds[self._member] = seed
        observations, infos = self._envs.reset(
            seed=seeds, options={**(options or {}), "reset_mask": mask}
        )
        columns = {k: v for k, v in infos.items() if not k.startswith("_")}
        info = {key: values[self._member].item() for key, values in columns.items()}
        return observations[self._member], info

    def render(self) -> Any:  # noqa: ANN401 - a line of text or an image
        """Return one line of text or one image."""
        return self._envs.render_member(self._member)

    def close(self) -> None:
        """Do nothing: the members share all resources."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute
        """Return an attribute of the population, unless it is a method."""
        value = getattr(self._envs, name)
        if callable(value):
            raise AttributeError(
                f"cannot call {name!r} of single members: it acts on all; call it on "
                "the attribute `envs`"
            )
        return value


class ScaleReward(VecEnvWrapper):
    """Multiplies rewards. A VecMonitor below it still records unscaled rewards."""

    def __init__(self, venv: VecEnv, scale: float) -> None:
        """Wrap `venv`."""
        super().__init__(venv)
        self.scale = scale

    def reset(self) -> Any:  # noqa: ANN401 - the base class' type
        """Reset all members."""
        return self.venv.reset()

    def step_wait(self) -> Any:  # noqa: ANN401 - the base class' type
        """Step; return scaled rewards."""
        observations, rewards, ended, infos = self.venv.step_wait()
        return observations, self.scale * rewards, ended, infos


def make_vec_env(
    env_id: str, n_envs: int = 1, *, seed: int | None = None, **settings: Any
) -> VecMonitor:
    """Return `n_envs` members of a registered environment in a VecMonitor.

    The counterpart of `stable_baselines3.common.env_util.make_vec_env`.

    Args:
        env_id: A registered id, with or without ``lr_gym:`` before it.
        n_envs: Number of members.
        seed: At the first reset, member e gets the seed `seed` + e.
        **settings: Keywords of `gym.make`.

    Raises:
        TypeError: A keyword is unknown, or the id names another environment.
        ValueError: A value is out of range.
    """
    if not isinstance(env_id, str):
        raise TypeError(f"env_id must be a string, got {env_id!r}")
    if seed is not None:
        check_integer("seed", seed, 0, 2**63 - 1)
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)  # registers the id, as in gym.make
        except (ImportError, TypeError, ValueError) as error:
            raise ImportError(
                f"the module of env_id={env_id!r} cannot be imported: {error}"
            ) from error
    entry_point = gym.spec(name).vector_entry_point
    if entry_point != "lr_gym.envs.vector:LRTuningVectorEnv":
        raise TypeError(f"{env_id} is not a learning-rate environment")
    settings = {"autoreset_mode": AutoresetMode.SAME_STEP.value} | settings
    envs = gym.make_vec(env_id, num_envs=n_envs, **settings)
    vec_env = LRTuningVecEnv(cast(LRTuningVectorEnv, envs.unwrapped))
    vec_env.seed(seed)
    return VecMonitor(vec_env)
