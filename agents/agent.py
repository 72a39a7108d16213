"""The base class of agents, and episodes with one agent or with many.

Subclass `Agent` and override `act`: `benchmarks/compare_agents.py` then takes the class
by its path (``my_agents.py:MyAgent``). An agent that learns from every step overrides
`learn` too; one that trains before the comparison overrides `train`.

An agent meets its environment through Gymnasium: `run_episode` works with any
environment. `run_population` needs lr_gym's own, see there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from lr_gym.envs.episodes import EpisodeBatch
from lr_gym.envs.spaces import Action as Action
from lr_gym.envs.spaces import Observation as Observation
from lr_gym.envs.vector import LRTuningVectorEnv

LREnv: TypeAlias = gym.Env[Observation, Action]
AnyEnv: TypeAlias = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
ENVS = ("markov", "shakespeare", "enwik8", "text8")
SINGLE_ONLY = ("progress_bar", "render_mode")  # keywords a population does not take


@dataclass(frozen=True)
class Transition:
    """One decision and its outcome, as `env.step` returned it."""

    observation: Observation
    action: Action
    reward: float
    next_observation: Observation
    terminated: bool
    truncated: bool = False


class Agent:
    """Keeps the learning rate; the base of every other agent.

    Attributes:
        settings: Keywords of `gym.make` that the agent needs: its features, reward,
            factors, or a base schedule.
        learns: Whether `train` has to be called before the agent is tested; by default,
            whether the class overrides it.
        training_episodes: Training runs that `train` has spent.
        history: Final validation losses of those runs, in their order.
        learning_rate: Initial learning rate; `None` is the task's.
    """

    settings: Mapping[str, Any] = {}
    learns: bool = False
    training_episodes: int = 0
    history: tuple[float, ...] = ()
    learning_rate: float | None = None

    def __init_subclass__(cls) -> None:
        """Note whether the class learns."""
        super().__init_subclass__()
        cls.learns = cls.train is not Agent.train

    def train(self, env: LREnv, episodes: int) -> None:
        """Learn from `episodes` whole runs before the test; here, do nothing.

        Agents that learn set `training_episodes` to the runs that they spent.
        """

    def begin(self, env: AnyEnv) -> None:
        """Prepare for a new episode; called after every reset.

        Args:
            env: The environment, or the vector environment that the agent is one
                member of.
        """
        self.keep_action: int = episodes_of(env).config.keep_action

    def act(self, observation: Observation) -> Action:
        """Choose an action for `observation`."""
        return self.keep_action

    def learn(self, transition: Transition) -> None:
        """Learn from the last step; called after every one."""


def make_env(env: str, **settings: Any) -> LREnv:
    """Make the environment of the corpus `env`, or of a text file's path."""
    if env in ENVS:
        return gym.make(f"LRTuning-{env}-v0", **settings)
    return gym.make("LRTuningEnv-v0", corpus=env, **settings)


def make_envs(env: str, num_envs: int, **settings: Any) -> LRTuningVectorEnv:
    """Make `num_envs` environments as of `make_env`, trained as one population."""
    if env in ENVS:
        return _make_vec(f"LRTuning-{env}-v0", num_envs, **settings)
    return _make_vec("LRTuningEnv-v0", num_envs, corpus=env, **settings)


def _make_vec(env_id: str, num_envs: int, **settings: Any) -> LRTuningVectorEnv:
    envs = gym.make_vec(env_id, num_envs=num_envs, **settings).unwrapped
    if not isinstance(envs, LRTuningVectorEnv):
        raise TypeError(f"the agents need an LRTuningVectorEnv, got {envs}")
    return envs


def script_env(env: str, **settings: Any) -> LREnv:
    """Make the environment for a script; wrong settings end it without a traceback."""
    try:
        return make_env(env, **settings)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


def episodes_of(env: AnyEnv) -> EpisodeBatch:
    """Return the episodes of an lr_gym environment, single or vector, wrapped or not.

    Raises:
        TypeError: `env` is another environment.
    """
    episodes: EpisodeBatch | None = getattr(env.unwrapped, "episodes", None)
    if episodes is None:
        raise TypeError(f"the agents need an LRTuningEnv, got {env.unwrapped}")
    return episodes


def population_spec(env: LREnv) -> tuple[str, dict[str, Any]]:
    """Return the id and the keywords that make a population of `env`'s kind.

    Raises:
        ValueError: `env` was not made by `gym.make`.
    """
    if env.spec is None:
        raise ValueError("train() needs an environment made by gym.make")
    keywords = {k: v for k, v in env.spec.kwargs.items() if k not in SINGLE_ONLY}
    return env.spec.id, keywords


def make_population(env: LREnv, size: int) -> LRTuningVectorEnv:
    """Return `size` environments made as `env` was, trained as one population."""
    env_id, keywords = population_spec(env)
    return _make_vec(env_id, size, **keywords)


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
        env: Any environment; lr_gym's is made with the agent's settings.
        agent: Chooses the actions, and learns if `learning` is true.
        seed: For `env.reset`.
        options: For `env.reset`.
        learning: Whether `agent.learn` sees the transitions.
        on_step: Called with every info, that of the reset first.

    Returns:
        The info dictionary after the reset and after every step; those after a step
        also hold ``action`` and ``reward``.
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
                Transition(
                    observation, action, float(reward), after, terminated, truncated
                )
            )
        plain = np.asarray(action).tolist()
        trajectory.append({**info, "action": plain, "reward": float(reward)})
        observation = after
    if on_step is not None:
        on_step(info)
    return trajectory


def run_population(
    envs: LRTuningVectorEnv,
    agents: Sequence[Agent],
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    *,
    learning: bool = True,
    on_step: Callable[[], object] | None = None,
) -> list[list[dict[str, Any]]]:
    """Run one episode per agent in one population; return their trajectories.

    It steps the episodes themselves and not `envs`: members that have ended must not
    train on, and `envs.step` would reset them. It also takes initial learning rates
    outside [`min_lr`, `max_lr`].

    Args:
        envs: One member per agent, made with the agents' settings. Members of a family
            keep the instances of the last reset.
        agents: Each chooses the actions of its member, and learns from them.
        seeds: Seeds of the training runs.
        learning_rates: Initial learning rates.
        learning: Whether `agent.learn` sees the transitions.
        on_step: Called after every decision of the population.

    Returns:
        One trajectory per agent, as of `run_episode`.
    """
    episodes = envs.episodes
    members = range(len(agents))
    episodes.reset_members(members, seeds, np.asarray(learning_rates, dtype=float))
    for agent in agents:
        agent.begin(envs)
    trajectories = [[info] for info in _member_infos(episodes)]
    observations = episodes.observe()
    while not episodes.state.terminated.all():
        acting = [int(m) for m in np.flatnonzero(~episodes.state.terminated)]
        chosen = {m: agents[m].act(observations[m]) for m in acting}
        # The array of actions has a row for members that have ended, too.
        actions = [chosen.get(member, chosen[acting[0]]) for member in members]
        plain = [np.asarray(action).tolist() for action in actions]
        table = np.stack([np.asarray(action).reshape(-1) for action in actions])
        rewards = episodes.step(table, acting)
        before, observations = observations, episodes.observe()
        infos = _member_infos(episodes)
        for member in acting:
            reward = float(rewards[member])
            if learning:
                agents[member].learn(
                    Transition(
                        before[member],
                        actions[member],
                        reward,
                        observations[member],
                        bool(episodes.state.terminated[member]),
                    )
                )
            info = {**infos[member], "action": plain[member], "reward": reward}
            trajectories[member].append(info)
        if on_step is not None:
            on_step()
    return trajectories


def _member_infos(episodes: EpisodeBatch) -> list[dict[str, Any]]:
    """Return every member's info, as plain Python values."""
    columns = {key: values.tolist() for key, values in episodes.info().items()}
    size = episodes.trainer.size
    return [{key: column[m] for key, column in columns.items()} for m in range(size)]


def episode_return(trajectory: list[dict[str, Any]]) -> float:
    """Return the undiscounted sum of rewards of a trajectory."""
    return float(sum(step["reward"] for step in trajectory[1:]))
