"""What an agent is, and one episode with it.

Subclass `Agent`, override `act`, and `benchmarks/compare_agents.py` takes it by its
Python path (``my_agents.py:MyAgent``). An agent that learns overrides `learn` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import lr_gym  # noqa: F401 - registers the environments

Observation = NDArray[np.float32]
ENVS = ("markov", "shakespeare", "enwik8", "text8")


@dataclass(frozen=True)
class Transition:
    """One decision and what came of it."""

    observation: Observation
    action: Any
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

    def train(self, env: gym.Env[Observation, Any], episodes: int) -> None:
        """Learn from `episodes` whole runs before being judged; here nothing is learned.

        Agents that do learn set `training_episodes` to what they spent.
        """

    def begin(self, env: gym.Env[Observation, Any]) -> None:
        """Prepare for an episode of `env`; called after its reset."""
        self.keep_action: int = env.unwrapped.keep_action  # type: ignore[attr-defined]

    def act(self, observation: Observation) -> Any:
        """Choose an action for `observation`."""
        return self.keep_action

    def learn(self, transition: Transition) -> None:
        """Take in what the last action brought; called after every step."""


def make_env(env: str, **settings: Any) -> gym.Env[Observation, Any]:
    """Make the environment of the corpus `env`, or of a text file's path."""
    if env in ENVS:
        return gym.make(f"LRTuning-{env}-v0", **settings)
    return gym.make("LRTuningEnv-v0", corpus=env, **settings)


def run_episode(
    env: gym.Env[Observation, Any],
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


