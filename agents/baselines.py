"""Agents that do not learn: schedules, random actions, and rules.

Run one agent on one corpus; the script prints a line per decision:

    python agents/baselines.py --agent plateau --env markov --scale tiny
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.agent import (
    Action,
    Agent,
    AnyEnv,
    Observation,
    episode_return,
    episodes_of,
    run_episode,
    script_env,
)
from agents.command_line import parse_command_line
from lr_gym.controllers.policies.policy import Policy
from lr_gym.controllers.policies.ramp_and_undo import RampAndUndo
from lr_gym.controllers.policies.update_size_rule import UpdateSizeRule
from lr_gym.schedules import SCHEDULES
from lr_gym.validation import check_choice


class ScheduleAgent(Agent):
    """Always keeps the rate: follows the base schedule."""

    def __init__(self, schedule: str, seed: int = 0) -> None:
        """Follow `schedule`, one of `lr_gym.SCHEDULES`; `seed` is unused."""
        self.settings = {"base_schedule": schedule}


class RandomAgent(Agent):
    """Chooses actions uniformly at random."""

    def __init__(self, seed: int = 0) -> None:
        """Seed the actions."""
        self._random = np.random.default_rng(seed)

    def begin(self, env: AnyEnv) -> None:
        """Read the number of actions."""
        self._actions = _factors(env).size

    def act(self, observation: Observation) -> int:
        """Return a random action."""
        return int(self._random.integers(self._actions))


class ReduceOnPlateau(Agent):
    """Halves the rate after `patience` decisions without a new best validation loss.

    The rule of `torch.optim.lr_scheduler.ReduceLROnPlateau`, with its relative
    threshold of 1e-4.
    """

    settings = {"features": ("val_loss", "learning_rate")}  # noqa: RUF012 - read only

    def __init__(
        self, seed: int = 0, patience: int = 1, threshold: float = 1e-4
    ) -> None:
        """Set the rule; `seed` is unused."""
        self.patience = patience
        self.threshold = threshold

    def begin(self, env: AnyEnv) -> None:
        """Reset the memory of the last run."""
        super().begin(env)
        self._down = int(_factors(env).argmin())
        self._best = np.inf
        self._waited = 0

    def act(self, observation: Observation) -> int:
        """Lower the rate after more than `patience` decisions without a new best."""
        if observation[0] < self._best * (1.0 - self.threshold):
            self._best = float(observation[0])
            self._waited = 0
            return self.keep_action
        self._waited += 1
        if self._waited <= self.patience:
            return self.keep_action
        self._waited = 0
        return self._down


class Reactive(Agent):
    """Raises the rate when the validation loss fell, lowers it when it rose."""

    settings = {"features": ("val_loss", "learning_rate")}  # noqa: RUF012 - read only

    def __init__(self, seed: int = 0) -> None:
        """`seed` is unused."""

    def begin(self, env: AnyEnv) -> None:
        """Reset the memory of the last run."""
        super().begin(env)
        factors = _factors(env)
        self._up, self._down = int(factors.argmax()), int(factors.argmin())
        self._last: float | None = None

    def act(self, observation: Observation) -> int:
        """Raise or lower the rate; at the first decision keep it."""
        loss, last = float(observation[0]), self._last
        self._last = loss
        if last is None:
            return self.keep_action
        return self._up if loss < last else self._down


class GreedyLR(Agent):
    """Raises the rate after more than `patience` new bests in a row, else lowers it.

    GreedyLR (Subramanian et al. 2023, "Zeroth-order GreedyLR: An adaptive learning rate
    scheduler for deep neural network training"), without its smoothing: validation
    losses are exact here. It lowers the rate after more than `patience` decisions in a
    row without a new best. `Reactive` compares with the last loss and takes larger
    steps.
    """

    settings = {"lr_factors": (0.75, 1.0, 1.0 / 0.75)}  # noqa: RUF012 - read only

    def __init__(
        self, seed: int = 0, patience: int = 1, threshold: float = 1e-4
    ) -> None:
        """Set the rule; `seed` is unused."""
        self.patience = patience
        self.threshold = threshold

    def begin(self, env: AnyEnv) -> None:
        """Reset the memory of the last run."""
        super().begin(env)
        self._best = np.inf
        self._better = self._worse = 0

    def act(self, observation: Observation) -> int:
        """Count decisions with and without a new best; act when a count is high."""
        loss = float(observation[0])
        if loss < self._best * (1.0 - self.threshold):
            self._best = loss
            self._better, self._worse = self._better + 1, 0
        else:
            self._better, self._worse = 0, self._worse + 1
        if self._better > self.patience:
            self._better = 0
            return 2
        if self._worse > self.patience:
            self._worse = 0
            return 0
        return self.keep_action


class RuleAgent(Agent):
    """Follows a rule of `lr_gym.controllers`, which needs no tuned learning rate.

    The rule decides every 10 iterations over the first quarter of the run. Its first
    action, before any training, sets a rate far below the initial one; it can undo a
    chunk of training.
    """

    def __init__(self, rule: Policy) -> None:
        """Turn the decisions of `rule` into continuous actions."""
        self.rule = rule
        self.settings: Mapping[str, Any] = {
            "features": rule.config.features,
            "base_schedule": rule.config.base_schedule,
            "action_type": "continuous",
            "max_log2_factor": 10.0,  # one action reaches the first rate, and the last
            "allow_undo": True,
            "decision_spacing": "dense_start",
            "min_lr": rule.config.min_lr,
        }

    def begin(self, env: AnyEnv) -> None:
        """Reset the memory of the last run."""
        episodes = episodes_of(env)
        self._span = episodes.config.max_log2_factor
        self.rule.reset(episodes.decisions)

    def act(self, observation: Observation) -> Action:
        """Return the rule's decision as an action."""
        decision = self.rule.act(observation)
        exponent = float(np.clip(math.log2(decision.factor) / self._span, -1.0, 1.0))
        return np.array([exponent, 1.0 if decision.undo else -1.0], dtype=np.float32)


class RampAndUndoAgent(RuleAgent):
    """Follows `lr_gym.controllers.policies.ramp_and_undo`."""

    def __init__(self, seed: int = 0, **parameters: Any) -> None:
        """Pass `parameters` to `RampAndUndo`; `seed` is unused."""
        super().__init__(RampAndUndo(**parameters))


class UpdateSizeAgent(RuleAgent):
    """Follows `lr_gym.controllers.policies.update_size_rule`."""

    def __init__(self, seed: int = 0, **parameters: Any) -> None:
        """Pass `parameters` to `UpdateSizeRule`; `seed` is unused."""
        super().__init__(UpdateSizeRule(**parameters))


def _factors(env: AnyEnv) -> NDArray[np.float64]:
    """Return the factor of each action that multiplies the learning rate."""
    return np.array(episodes_of(env).config.lr_factors)


def _schedule(name: str) -> Callable[[int], Agent]:
    return lambda seed: ScheduleAgent(name, seed)


BASELINES: dict[str, Callable[[int], Agent]] = {
    **{name: _schedule(name) for name in SCHEDULES},
    "random": RandomAgent,
    "plateau": ReduceOnPlateau,
    "reactive": Reactive,
    "greedy_lr": GreedyLR,
    "ramp_and_undo": RampAndUndoAgent,
}


@dataclass
class Args:
    """Run one baseline for one episode."""

    agent: str = "constant"
    """A schedule, random, plateau, reactive, greedy_lr or ramp_and_undo."""
    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "auto"
    """Size of the model and length of the run."""
    seed: int = 0
    """Seeds the run and the agent."""
    learning_rate: float | None = None
    """Initial learning rate; default: the scale's."""


def main(args: Args) -> None:
    """Run the episode, one line per decision."""
    try:
        check_choice("--agent", args.agent, BASELINES)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    agent = BASELINES[args.agent](args.seed)
    settings = dict(agent.settings)
    if args.learning_rate is not None:
        settings["learning_rate"] = args.learning_rate
    env = script_env(args.env, scale=args.scale, render_mode="ansi", **settings)
    trajectory = run_episode(
        env, agent, seed=args.seed, on_step=lambda _: print(env.render(), flush=True)
    )
    print(f"return {episode_return(trajectory):.4f}")


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
