"""A policy file as an agent: what a controller learned, judged like any other."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from agents.agent import Action, Agent, AnyEnv, Observation, episodes_of
from agents.baselines import RuleAgent
from lr_gym.controllers import ActionPolicy, load_controller
from lr_gym.mdp.config import MDPConfig


def saved_agent(path: str | os.PathLike[str], seed: int = 0) -> Agent:
    """Return the agent that acts as the policy or the rule of a file does.

    Args:
        path: The file, or a name that `lr_gym.load_controller` knows.
        seed: Changes nothing.

    Raises:
        ValueError: The file is refused.
    """
    policy = load_controller(path)
    if isinstance(policy, ActionPolicy):
        return SavedPolicy(policy)
    return RuleAgent(policy)


class SavedPolicy(Agent):
    """Acts as a policy that was made in the environment does, and learns nothing."""

    def __init__(self, policy: ActionPolicy) -> None:
        """Take the policy's own view of the environment as settings."""
        self.policy = policy
        default = MDPConfig()
        self.settings: dict[str, Any] = {
            field.name: getattr(policy.config, field.name)
            for field in dataclasses.fields(MDPConfig)
            if getattr(policy.config, field.name) != getattr(default, field.name)
        }

    def begin(self, env: AnyEnv) -> None:
        """Reset the policy for a new run."""
        self.policy.reset(episodes_of(env).decisions)

    def act(self, observation: Observation) -> Action:
        """Return the policy's action."""
        return self.policy.action(observation)
