"""A policy file as an agent: what a controller learned, judged like any other."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from agents.agent import Action, Agent, Observation
from lr_gym.controllers import ActionPolicy, load_controller
from lr_gym.episodes import Episodes
from lr_gym.mdp import MDPConfig


class SavedPolicy(Agent):
    """Acts as the policy of a file does, and learns nothing more."""

    def __init__(self, path: str | os.PathLike[str], seed: int = 0) -> None:
        """Read the file; `seed` changes nothing.

        Raises:
            ValueError: It is no policy that was made in the environment.
        """
        policy = load_controller(path)
        if not isinstance(policy, ActionPolicy):
            raise ValueError(f"{os.fspath(path)!r} is no policy file, but a rule")
        self.policy = policy
        default = MDPConfig()
        self.settings: dict[str, Any] = {
            field.name: getattr(policy.config, field.name)
            for field in dataclasses.fields(MDPConfig)
            if getattr(policy.config, field.name) != getattr(default, field.name)
        }

    def begin(self, episodes: Episodes) -> None:
        """Begin a run."""
        self.policy.reset(episodes.decisions)

    def act(self, observation: Observation) -> Action:
        """Return the policy's action."""
        return self.policy.action(observation)
