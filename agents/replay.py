"""Agents that replay: learning rates or actions written down before the run begins.

They are the controls of the evidence. What an agent's mean curve, or its own actions in
another order, achieve without looking, no observation was needed for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.agent import (
    Action,
    Agent,
    AnyEnv,
    Observation,
    Transition,
    episodes_of,
)

# Settings that say when a curve's rates apply, and how far an action reaches.
OF_A_CURVE = (
    "base_schedule",
    "decision_spacing",
    "dense_interval",
    "dense_fraction",
    "max_log2_factor",
    "min_lr",
    "max_lr",
)


class OpenLoop(Agent):
    """Follows a curve of learning rates, one per decision, whatever happens."""

    settings: Mapping[str, Any] = {"action_type": "continuous"}

    def __init__(
        self, curve: Sequence[float], own: Mapping[str, Any] | None = None
    ) -> None:
        """Follow `curve`, as far as one action reaches: a factor of 2 by default.

        Args:
            curve: Learning rates, one per decision.
            own: Settings of the agent whose curve it is.
        """
        kept = {k: v for k, v in (own or {}).items() if k in OF_A_CURVE}
        self.settings = {**kept, "action_type": "continuous"}
        self.follow(curve)

    def follow(self, curve: Sequence[float]) -> None:
        """Replace the curve.

        Raises:
            ValueError: The curve is empty, or a rate is not finite and above 0.
        """
        if not curve or not all(math.isfinite(rate) and rate > 0 for rate in curve):
            raise ValueError(f"a curve needs rates above 0, got {list(curve)!r}")
        self.curve = [float(rate) for rate in curve]
        self.learning_rate = self.curve[0]

    def begin(self, env: AnyEnv) -> None:
        """Go back to the start of the curve."""
        self._span = episodes_of(env).config.max_log2_factor
        self._now = self.curve[0]
        self._decision = 0

    def act(self, observation: Observation) -> Action:
        """Go to the curve's next rate, as far as one action reaches."""
        wanted = self.curve[min(self._decision, len(self.curve) - 1)]
        self._decision += 1
        step = np.clip(math.log2(wanted / self._now) / self._span, -1.0, 1.0)
        self._now *= 2.0 ** float(step * self._span)
        return np.array([step], dtype=np.float32)


class ActionReplay(Agent):
    """Takes given actions in their order."""

    def __init__(self, actions: Sequence[int], settings: Mapping[str, Any]) -> None:
        """Replay `actions`, which mean what they do under `settings`."""
        self.actions = list(actions)
        self.settings = settings

    def begin(self, env: AnyEnv) -> None:
        """Go back to the first action."""
        super().begin(env)
        self._decision = 0

    def act(self, observation: Observation) -> int:
        """Take the next action; keep the rate where there is none left."""
        decision = self._decision
        self._decision += 1
        rest = self.actions[decision : decision + 1]
        return rest[0] if rest else self.keep_action


class Placebo(Agent):
    """What the paper's released code does: an agent whose rate trains nothing.

    The agent sees the rate it chose, learns from what follows, and believes; the
    optimizer follows the base schedule, since every action sent to it is "keep".
    """

    def __init__(self, inner: Agent, schedule: str = "cosine") -> None:
        """Disconnect `inner`, which observes (val_loss, learning_rate, ...)."""
        self.inner = inner
        self.settings = {**inner.settings, "base_schedule": schedule}

    def begin(self, env: AnyEnv) -> None:
        """Forget the last run."""
        super().begin(env)
        self.inner.begin(env)
        self._config = episodes_of(env).config
        self.claimed: list[float] = []

    def act(self, observation: Observation) -> Action:
        """Let the inner agent choose its own rate; touch nothing."""
        if not self.claimed:  # it starts from the run's own
            self.claimed.append(float(observation[1]))
        chosen = self.inner.act(self._believed(observation))
        rate = self.claimed[-1] * self._config.lr_factors[int(chosen)]
        low, high = self._config.min_lr, self._config.max_lr
        self.claimed.append(float(np.clip(rate, low, high)))
        self._chosen = chosen
        return self.keep_action

    def learn(self, transition: Transition) -> None:
        """Let the inner agent learn from its own action and belief."""
        before = transition.observation.copy()
        before[1] = self.claimed[-2]
        after = self._believed(transition.next_observation)
        self.inner.learn(
            Transition(
                before, self._chosen, transition.reward, after, transition.terminated
            )
        )

    def _believed(self, observation: Observation) -> Observation:
        believed = observation.copy()
        believed[1] = self.claimed[-1]
        return believed
