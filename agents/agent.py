"""What an agent is, and one episode with it.

Subclass `Agent`, override `act`, and `benchmarks/compare_agents.py` takes it by its
Python path (``my_agents.py:MyAgent``). An agent that learns overrides `learn` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np

from lr_gym.env import Action as Action
from lr_gym.env import LRTuningEnv
from lr_gym.env import Observation as Observation

LREnv: TypeAlias = gym.Env[Observation, Action]
ENVS = ("markov", "shakespeare", "enwik8", "text8")


@dataclass(frozen=True)
class Transition:
    """One decision and what came of it."""

    observation: Observation
    action: Action
    reward: float
    next_observation: Observation
    terminated: bool


class Agent:
    """Keeps the learning rate; the base of every other agent.

    Attributes:
        settings: Keywords of `gym.make` that the agent needs: its features, reward,
            factors, or a base schedule.
        training_episodes: Whole training runs it spent on learning before it is judged.
    """

    settings: Mapping[str, Any] = {}
    training_episodes: int = 0

    def train(self, env: LREnv, episodes: int) -> None:
        """Learn from `episodes` whole runs before being judged; here, do nothing.

        Agents that do learn set `training_episodes` to what they spent.
        """

    def begin(self, env: LREnv) -> None:
        """Prepare for an episode of `env`; called after its reset."""
        self.keep_action = unwrap(env).keep_action

    def act(self, observation: Observation) -> Action:
        """Choose an action for `observation`."""
        return self.keep_action

    def learn(self, transition: Transition) -> None:
        """Take in what the last action brought; called after every step."""


def make_env(env: str, **settings: Any) -> LREnv:
    """Make the environment of the corpus `env`, or of a text file's path."""
    if env in ENVS:
        return gym.make(f"LRTuning-{env}-v0", **settings)
    return gym.make("LRTuningEnv-v0", corpus=env, **settings)


def script_env(env: str, **settings: Any) -> LREnv:
    """Make the environment for a script: what is wrong ends it in one line."""
    try:
        return make_env(env, **settings)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


def unwrap(env: LREnv) -> LRTuningEnv:
    """Return the learning-rate environment under its wrappers.

    Raises:
        TypeError: It is another environment.
    """
    if not isinstance(env.unwrapped, LRTuningEnv):
        raise TypeError(f"the agents need an LRTuningEnv, got {env.unwrapped}")
    return env.unwrapped


def run_episode(
    env: LREnv,
    agent: Agent,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    learning: bool = True,
    on_step: Callable[[dict[str, Any]], object] | None = None,
) -> list[dict[str, Any]]:
    """Run one episode and return its trajectory.

    Args:
        env: Made with the agent's settings.
        agent: Decides, and learns where `learning` is true.
        seed: For `env.reset`.
        options: For `env.reset`.
        learning: Whether `agent.learn` sees the transitions.
        on_step: Called with every info, that of the reset first.

    Returns:
        The info dictionary after reset and after every step; those after a step also
        hold ``action`` and ``reward``.
    """
    observation, info = env.reset(seed=seed, options=options)
    agent.begin(env)
    trajectory = [info]
    terminated = truncated = False
    while not (terminated or truncated):
        if on_step is not None:
            on_step(info)
        action = agent.act(observation)
        after, reward, terminated, truncated, info = env.step(action)
        if learning:
            agent.learn(
                Transition(observation, action, float(reward), after, terminated)
            )
        plain = np.asarray(action).tolist()
        trajectory.append({**info, "action": plain, "reward": float(reward)})
        observation = after
    if on_step is not None:
        on_step(info)
    return trajectory


def episode_return(trajectory: list[dict[str, Any]]) -> float:
    """Return the undiscounted sum of rewards of a trajectory."""
    return float(sum(step["reward"] for step in trajectory[1:]))
