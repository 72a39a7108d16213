"""What an agent is, and one episode with it.

Subclass `Agent`, override `act`, and `benchmarks/compare_agents.py` takes it by its
Python path (``my_agents.py:MyAgent``). An agent that learns overrides `learn` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np

from lr_gym.envs.episodes import EpisodeBatch
from lr_gym.envs.lr_tuning import Action as Action
from lr_gym.envs.lr_tuning import Observation as Observation
from lr_gym.envs.vector import LRTuningVectorEnv

LREnv: TypeAlias = gym.Env[Observation, Action]
ENVS = ("markov", "shakespeare", "enwik8", "text8")
SINGLE_ONLY = ("progress_bar", "render_mode")  # keywords a population does not take


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
        learns: Whether `train` has to be called before the agent is judged; by default,
            whether the class overrides it.
        training_episodes: Whole training runs it spent on learning before it is judged.
        history: Final validation losses of those runs, in their order.
        learning_rate: The initial rate it wants; `None` leaves that to the task.
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
        """Learn from `episodes` whole runs before being judged; here, do nothing.

        Agents that do learn set `training_episodes` to what they spent.
        """

    def begin(self, episodes: EpisodeBatch) -> None:
        """Prepare for an episode of the kind that `episodes` runs; after its reset."""
        self.keep_action = episodes.config.keep_action

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


def episodes_of(env: LREnv) -> EpisodeBatch:
    """Return the episodes of the learning-rate environment under its wrappers.

    Raises:
        TypeError: It is another environment.
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


def make_population(env: LREnv, size: int) -> EpisodeBatch:
    """Return `size` episodes of `env`'s kind, side by side; see `population_spec`."""
    env_id, keywords = population_spec(env)
    made = gym.make_vec(env_id, num_envs=size, **keywords).unwrapped
    if not isinstance(made, LRTuningVectorEnv):
        raise TypeError(f"the agents need an LRTuningVectorEnv, got {made}")
    return made.episodes


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
    agent.begin(episodes_of(env))
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


def run_population(
    episodes: EpisodeBatch,
    agents: Sequence[Agent],
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    *,
    learning: bool = True,
    on_step: Callable[[], object] | None = None,
) -> list[list[dict[str, Any]]]:
    """Run one episode per agent, side by side; return their trajectories.

    Args:
        episodes: As many as there are agents, made with their settings.
        agents: Each decides, and learns, for its own member.
        seeds: Of the training runs.
        learning_rates: Initial ones.
        learning: Whether `agent.learn` sees the transitions.
        on_step: Called after every decision of the population.

    Returns:
        One trajectory per agent, as of `run_episode`.
    """
    members = range(len(agents))
    episodes.reset_members(members, seeds, np.asarray(learning_rates, dtype=float))
    for agent in agents:
        agent.begin(episodes)
    trajectories = [[row] for row in _rows(episodes)]
    observations = episodes.observe()
    while not episodes.state.terminated.all():
        acting = [int(m) for m in np.flatnonzero(~episodes.state.terminated)]
        chosen = {m: agents[m].act(observations[m]) for m in acting}
        # Those whose run has ended have to hand in something, too.
        actions = [chosen.get(member, chosen[acting[0]]) for member in members]
        plain = [np.asarray(action).tolist() for action in actions]
        table = np.stack([np.asarray(action).reshape(-1) for action in actions])
        rewards = episodes.step(table, acting)
        before, observations = observations, episodes.observe()
        rows = _rows(episodes)
        for member in acting:
            reward = float(rewards[member])
            if learning:
                ended = bool(episodes.state.terminated[member])
                seen = before[member], actions[member], reward, observations[member]
                agents[member].learn(Transition(*seen, ended))
            row = {**rows[member], "action": plain[member], "reward": reward}
            trajectories[member].append(row)
        if on_step is not None:
            on_step()
    return trajectories


def _rows(episodes: EpisodeBatch) -> list[dict[str, Any]]:
    """Return every member's info, as plain Python values."""
    columns = {key: values.tolist() for key, values in episodes.info().items()}
    size = episodes.trainer.size
    return [{key: column[m] for key, column in columns.items()} for m in range(size)]


def episode_return(trajectory: list[dict[str, Any]]) -> float:
    """Return the undiscounted sum of rewards of a trajectory."""
    return float(sum(step["reward"] for step in trajectory[1:]))
