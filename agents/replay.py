"""Agents that replay learning rates or actions and ignore what they observe.

They are controls. If the replayed mean schedule of an agent, or its actions in another
order, do as well as the agent, then it gains nothing from its observations.
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

# Settings that decide when a curve's rates apply and how far one action reaches.
CURVE_SETTINGS = (
    "base_schedule",
    "decision_spacing",
    "dense_interval",
    "dense_fraction",
    "max_log2_factor",
    "min_lr",
    "max_lr",
)


class OpenLoop(Agent):
    """Follows a fixed curve of learning rates, one per decision."""

    settings: Mapping[str, Any] = {"action_type": "continuous"}

    def __init__(
        self, curve: Sequence[float], settings: Mapping[str, Any] | None = None
    ) -> None:
        """Follow `curve`; one action changes the rate by a factor of 2 at most.

        Args:
            curve: Learning rates, one per decision.
            settings: Settings of the agent that the curve comes from; its
                `max_log2_factor` replaces the factor of 2.
        """
        kept = {k: v for k, v in (settings or {}).items() if k in CURVE_SETTINGS}
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
        self._rate = self.curve[0]
        self._decision = 0

    def act(self, observation: Observation) -> Action:
        """Move to the curve's next rate, as far as one action reaches."""
        next_rate = self.curve[min(self._decision, len(self.curve) - 1)]
        self._decision += 1
        step = np.clip(math.log2(next_rate / self._rate) / self._span, -1.0, 1.0)
        self._rate *= 2.0 ** float(step * self._span)
        return np.array([step], dtype=np.float32)


class ActionReplay(Agent):
    """Repeats a list of actions."""

    def __init__(self, actions: Sequence[int], settings: Mapping[str, Any]) -> None:
        """Replay `actions` of an agent with `settings`."""
        self.actions = list(actions)
        self.settings = settings

    def begin(self, env: AnyEnv) -> None:
        """Go back to the first action."""
        super().begin(env)
        self._decision = 0

    def act(self, observation: Observation) -> int:
        """Take the next action; after the last, keep the rate."""
        if self._decision >= len(self.actions):
            return self.keep_action
        self._decision += 1
        return self.actions[self._decision - 1]


class Placebo(Agent):
    """Reproduces the paper's released code: the agent's rate is never used.

    The inner agent observes the rate that it chose and learns from the losses that
    follow. The environment gets "keep" at every decision, so that the optimizer follows
    the base schedule.
    """

    def __init__(self, inner: Agent, schedule: str = "cosine") -> None:
        """Disconnect `inner`, which observes (val_loss, learning_rate, ...)."""
        self.inner = inner
        self.settings = {**inner.settings, "base_schedule": schedule}

    def begin(self, env: AnyEnv) -> None:
        """Start both agents on a new run."""
        super().begin(env)
        self.inner.begin(env)
        self._config = episodes_of(env).config
        self.claimed: list[float] = []

    def act(self, observation: Observation) -> Action:
        """Record the inner agent's choice; keep the real rate."""
        if not self.claimed:  # starts from the run's initial rate
            self.claimed.append(float(observation[1]))
        chosen = self.inner.act(self._with_claimed_rate(observation))
        rate = self.claimed[-1] * self._config.lr_factors[int(chosen)]
        low, high = self._config.min_lr, self._config.max_lr
        self.claimed.append(float(np.clip(rate, low, high)))
        self._chosen = chosen
        return self.keep_action

    def learn(self, transition: Transition) -> None:
        """Let the inner agent learn from its own action and claimed rate."""
        before = transition.observation.copy()
        before[1] = self.claimed[-2]
        after = self._with_claimed_rate(transition.next_observation)
        self.inner.learn(
            Transition(
                before, self._chosen, transition.reward, after, transition.terminated
            )
        )

    def _with_claimed_rate(self, observation: Observation) -> Observation:
        changed = observation.copy()
        changed[1] = self.claimed[-1]
        return changed
