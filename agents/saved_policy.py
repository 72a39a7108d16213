"""Saved policies and rules as agents, so that they can be compared with others."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from agents.agent import Action, Agent, AnyEnv, Observation, episodes_of
from agents.baselines import RuleAgent
from lr_gym.controllers import ActionPolicy, load_controller
from lr_gym.mdp.config import MDPConfig


def saved_agent(path: str | os.PathLike[str], seed: int = 0) -> Agent:
    """Return an agent that follows the policy or rule in a file.

    Args:
        path: The file, or a name that `lr_gym.load_controller` knows.
        seed: Unused.

    Raises:
        ValueError: The file is not a valid policy.
    """
    policy = load_controller(path)
    if isinstance(policy, ActionPolicy):
        return SavedPolicy(policy)
    return RuleAgent(policy)


class SavedPolicy(Agent):
    """Follows a policy that was trained in the environment; does not learn."""

    def __init__(self, policy: ActionPolicy) -> None:
        """Make the policy's features and actions the agent's settings."""
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
