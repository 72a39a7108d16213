"""Tabular Q-learning on the learning rate: the paper's agent and an improved one.

    python agents/tabular_q.py --env markov --scale tiny --episodes 20
    python agents/tabular_q.py --env shakespeare --protocol paper --episodes 1

``paper`` is the paper's agent: states are (validation loss to 2 decimals, learning rate
to 5), factors 0.9, 1, 1.1, step size 0.1, discount 0.9, epsilon 0.1, one-step updates.
If all actions have the same value, the agent keeps the rate. The paper does not say
what happens then; its released code lowers the rate (``ties="first"``). With
``--episodes 1``, as in the paper, almost no state repeats, so the agent cannot learn.

``improved`` has the changes that our ablations showed to matter:

- A state is (decision, learning rate in half octaves), so states repeat between
  episodes.
- Rewards are not discounted; a discounted agent decays the rate too early.
- Updates replay the episode backwards: the outcome reaches the first decision at once.
- The step size is 0.5, and epsilon falls from 0.3 to 0.02.
- Factors are 0.5, 1, 2: large enough to correct a bad initial rate within one run.

The table is saved at the end: an interrupted training starts from the beginning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from agents.agent import (
    ENVS,
    Agent,
    AnyEnv,
    LREnv,
    Observation,
    Transition,
    episode_return,
    episodes_of,
    run_episode,
    script_env,
)
from agents.command_line import one_line_errors, parse_command_line
from lr_gym import PAPER_FACTORS
from lr_gym.controllers.policies.q_table import (
    DEFAULT_FEATURES,
    FEATURES,
    FORMAT,
    best_action,
    read_table,
    rounded,
)
from lr_gym.files import parse_json, read_file, write_text
from lr_gym.validation import check_choice, check_real

Protocol = Literal["paper", "improved"]
Ties = Literal["keep", "first"]
Reward = Literal[
    "loss_reduction",
    "log_loss_reduction",
    "final_loss",
    "best_improvement",
    "negative_loss",
]
EPSILON_DECAY = 0.99  # the paper's third ablation: after every exploring action


class TabularQ(Agent):
    """A table of action values, learned by Q-learning (Watkins 1989).

    Q(s, a) <- Q(s, a) + step_size [r + discount max_b Q(s', b) - Q(s, a)], with no
    bootstrap from a terminated episode. Unseen states are worth 0.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        protocol: Protocol = "improved",
        reward: Reward = "loss_reduction",
        epsilon_decay: bool = False,
        episodes: int = 1,
        discount: float | None = None,
        factors: Sequence[float] | None = None,
        features: Sequence[str] | None = None,
        ties: Ties = "keep",
        decimals: int | None = None,
        keep_action: int | None = None,
    ) -> None:
        """Start with an empty table.

        Args:
            seed: Of the exploration.
            protocol: ``paper`` or ``improved``; see the module.
            reward: The environment's reward.
            epsilon_decay: ``paper`` only: multiply epsilon by 0.99 at every exploring
                action, the paper's ablation.
            episodes: ``improved`` only: epsilon falls over this many episodes.
            discount: In [0, 1]; `None`, here and below, is the protocol's default.
            factors: Each action multiplies the rate by one of them; 1 is required.
            features: The state's entries, some of `FEATURES`, each rounded as in the
                protocol; ``improved`` rounds the loss to 1 decimal.
            ties: Among actions of equal value, ``keep`` prefers the one that keeps the
                rate; ``first`` takes the first, as in the paper's released code, where
                that lowers the rate in every state not seen before.
            decimals: For any environment with discrete actions: a state is the whole
                observation, rounded to so many decimals. `reward`, `factors` and
                `features` then have no meaning. `None` is for lr_gym's environments.
            keep_action: With `decimals`: what ``keep`` prefers; `None` is action 0.

        Raises:
            ValueError: An argument is out of range; the message names it.
        """
        if protocol not in ("paper", "improved"):
            raise ValueError(f"protocol must be paper or improved, got {protocol!r}")
        paper = protocol == "paper"
        if discount is None:
            discount = 0.9 if paper else 1.0
        if factors is None:
            factors = PAPER_FACTORS if paper else (0.5, 1.0, 2.0)
        if features is None:
            features = DEFAULT_FEATURES[protocol]
        _check(discount, factors, features)
        if ties not in ("keep", "first"):
            raise ValueError(f"ties must be keep or first, got {ties!r}")
        self.protocol = protocol
        self.learns = not paper  # the paper's agent learns during the test run
        self.step_size = 0.1 if paper else 0.5
        self.discount = discount
        self.epsilon = 0.1 if paper else 0.3
        self.epsilon_decay = epsilon_decay
        self.settings: dict[str, Any] = {}
        if decimals is None:
            self.settings = {
                "features": FEATURES,
                "lr_factors": tuple(factors),
                "reward": reward,
            }
        self.decimals = decimals
        self.keep_action = keep_action or 0
        self.features = tuple(features)
        self.ties = ties
        self.table: dict[tuple[float, ...], list[float]] = {}
        self._actions = len(factors)
        self._decisions = 1  # until an episode begins
        self._random = np.random.default_rng(seed)
        self._episode: list[Transition] = []
        self._finished = 0
        self._episodes = episodes
        self._greedy = False

    def begin(self, env: AnyEnv) -> None:
        """Start an episode; set epsilon where it follows the episodes.

        Raises:
            TypeError: The actions are not discrete, or without `decimals` the
                environment is not lr_gym's.
            ValueError: No action keeps the rate, or the table has another number of
                actions.
        """
        if self.decimals is None:
            super().begin(env)
            episodes = episodes_of(env)
            self._actions = len(episodes.config.lr_factors)
            self._decisions = episodes.decisions
        else:
            space = env.action_space
            if not isinstance(space, spaces.Discrete):
                raise TypeError(f"TabularQ needs discrete actions, got {space}")
            self._actions = int(space.n)
        other_lengths = {len(row) for row in self.table.values()} - {self._actions}
        if other_lengths:
            raise ValueError(
                f"the table has {other_lengths.pop()} actions per state, but there are "
                f"{self._actions} lr_factors: make both with the same factors"
            )
        self._episode = []
        if self.protocol == "improved":
            done = self._finished / max(1, self._episodes - 1)
            self.epsilon = 0.3 + (0.02 - 0.3) * min(1.0, done)

    def state(self, observation: Observation) -> tuple[float, ...]:
        """Return the state of an observation: the table's key."""
        if self.decimals is not None:
            return tuple(np.round(np.ravel(observation), self.decimals).tolist())
        features = dict(zip(FEATURES, map(float, observation), strict=True))
        return tuple(
            rounded(self.protocol, name, features[name], self._decisions)
            for name in self.features
        )

    def values(self, state: tuple[float, ...]) -> list[float]:
        """Return the action values of `state`."""
        return self.table.get(state, [0.0] * self._actions)

    def act(self, observation: Observation) -> int:
        """Explore with probability epsilon, else take the best action."""
        values = self.values(self.state(observation))
        if not self._greedy and self._random.random() < self.epsilon:
            if self.protocol == "paper" and self.epsilon_decay:
                self.epsilon *= EPSILON_DECAY
            return int(self._random.integers(len(values)))
        return best_action(values, self.keep_action, self.ties)

    def learn(self, transition: Transition) -> None:
        """``paper``: update at once. ``improved``: at the end, replay it backwards."""
        if self._greedy:
            return
        if self.protocol == "paper":
            self._update(transition)
            return
        self._episode.append(transition)
        if transition.terminated or transition.truncated:
            for past in reversed(self._episode):
                self._update(past)
            self._finished += 1

    def _update(self, transition: Transition) -> None:
        state = self.state(transition.observation)
        td_target = transition.reward
        if not transition.terminated:
            next_values = self.values(self.state(transition.next_observation))
            td_target += self.discount * max(next_values)
        values = self.table.setdefault(state, self.values(state))
        old = values[transition.action]
        values[transition.action] += self.step_size * (td_target - old)

    def train(self, env: LREnv, episodes: int) -> None:
        """``improved``: learn from `episodes` runs, then act greedily.

        ``paper``: do nothing; that agent learns during the test run.
        """
        if self.protocol == "paper":
            return
        self._episodes = episodes
        runs = [run_episode(env, self) for _ in range(episodes)]
        self.history = tuple(
            float(run[-1]["val_loss"]) for run in runs if "val_loss" in run[-1]
        )
        self.training_episodes = episodes
        self.finish()

    def finish(self) -> None:
        """Stop exploring and learning: act greedily from now on."""
        self._greedy = True
        self.learns = False

    def save(self, path: str | Path, **provenance: Any) -> None:
        """Write table and settings as JSON, at once or not at all.

        Raises:
            ValueError: The table is of another environment than lr_gym's.
        """
        if self.decimals is not None:
            raise ValueError("only tables of lr_gym's environments are saved")
        content = {
            "format": FORMAT,
            "protocol": self.protocol,
            "settings": self.settings,
            "discount": self.discount,
            "features": self.features,
            "ties": self.ties,
            "provenance": provenance,
            "table": [[*state, values] for state, values in self.table.items()],
        }
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path, seed: int = 0) -> TabularQ:
        """Read what `save` wrote.

        Raises:
            ValueError: The file is not such a table; the message says what is wrong.
        """
        try:
            content = parse_json(read_file(path))
        except ValueError as error:
            raise ValueError(f"{path} is not a table: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{path} is not a table: format must be {FORMAT!r}")
        try:
            settings = content["settings"]
            factors = settings["lr_factors"]
            protocol = content["protocol"]
            features: Any = content.get("features")
            if features is None:  # an older file: the protocol's default
                features = DEFAULT_FEATURES.get(protocol, ())
            table = read_table(content["table"], len(features), len(factors))
            agent = cls(
                seed,
                protocol=protocol,
                reward=settings["reward"],
                discount=content.get("discount"),  # None in an older file
                factors=factors,
                features=features,
                ties=content.get("ties", "keep"),
            )
            agent.table = table
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a whole table: {error!r}") from error
        return agent


def _check(discount: float, factors: Sequence[float], features: Sequence[str]) -> None:
    check_real("discount", discount, 0.0, 1.0)
    if 1.0 not in factors or len(set(factors)) < len(factors):
        raise ValueError(
            f"factors must differ and hold 1, which keeps the rate; got {factors!r}"
        )
    for factor in factors:
        check_real("factors", factor, 0.0, low_open=True)
    for feature in features:
        check_choice("features", feature, FEATURES)
    if not features or len(set(features)) < len(features):
        raise ValueError(f"features must be one or more, once each, got {features!r}")


@dataclass
class Args:
    """Train the agent on real training runs and save its table."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "auto"
    """Size of the model and length of a run."""
    episodes: int = 10
    """Training runs to learn from, one after the other."""
    seed: int = 0
    """Seeds the runs and the exploration."""
    protocol: Protocol = "improved"
    """The paper's agent, or the improved one."""
    reward: Reward = "loss_reduction"
    """The environment's reward."""
    epsilon_decay: bool = False
    """Paper protocol: multiply epsilon by 0.99 at every exploring action."""
    table: Path | None = None
    """Continue from a saved table."""
    out: Path | None = None
    """Where to write the table; default results/tabular_q/ENV-PROTOCOL-SEED.json."""


def main(args: Args) -> TabularQ:
    """Train, print one line per episode, save the table."""
    if args.episodes < 1:
        raise SystemExit(f"--episodes must be at least 1, got {args.episodes}")
    if args.table is None:
        agent = TabularQ(
            args.seed,
            protocol=args.protocol,
            reward=args.reward,
            epsilon_decay=args.epsilon_decay,
            episodes=args.episodes,
        )
    else:
        with one_line_errors():
            agent = TabularQ.load(args.table, args.seed)
    name = args.env if args.env in ENVS else Path(args.env).stem
    out = args.out or Path(
        f"results/tabular_q/{name}-{agent.protocol}-{args.seed}.json"
    )
    env = script_env(args.env, scale=args.scale, progress_bar=True, **agent.settings)
    returns = []
    for episode in range(args.episodes):
        trajectory = run_episode(env, agent, seed=args.seed + episode)
        returns.append(episode_return(trajectory))
        final = trajectory[-1]
        print(
            f"episode {episode + 1}/{args.episodes}  return {returns[-1]:.4f}  "
            f"final val_loss {final['val_loss']:.4f}  best {final['best_val_loss']:.4f}"
            f"  last lr {final['learning_rate']:.2e}  epsilon {agent.epsilon:.3f}"
            f"  states {len(agent.table)}{'  diverged' if final['diverged'] else ''}",
            flush=True,
        )
        # Saved after every episode: an interruption loses one run at most.
        agent.save(out, env=args.env, scale=args.scale, seed=args.seed, returns=returns)
    print(f"table: {out}")
    return agent


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
