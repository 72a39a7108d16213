"""A DQN in one file, in the manner of CleanRL: it knows Gymnasium, NumPy and torch.

It stands for code that was written for other environments: nothing here is about
learning rates but the id and the keywords of the environment, and the discount of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's custom
from torch import nn


@dataclass
class Args:
    """Settings of one training."""

    env_id: str = "lr_gym:LRTuning-markov-v0"
    env_settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    total_steps: int = 300
    learning_starts: int = 40
    buffer_size: int = 1_000
    batch_size: int = 32
    learning_rate: float = 1e-3
    gamma: float = 1.0
    target_network_steps: int = 50
    start_epsilon: float = 1.0
    end_epsilon: float = 0.05
    exploration_fraction: float = 0.5


class QNetwork(nn.Module):
    """Action values of a flat observation."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__()
        size = int(np.prod(env.observation_space.shape or ()))
        assert isinstance(env.action_space, gym.spaces.Discrete)
        self.network = nn.Sequential(
            nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, int(env.action_space.n))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, size) -> (B, actions)
        values: torch.Tensor = self.network(x)
        return values


class ReplayBuffer:
    """The last `size` transitions."""

    def __init__(self, size: int, env: gym.Env[Any, Any]) -> None:
        shape = env.observation_space.shape or ()
        self.obs = np.zeros((size, *shape), dtype=np.float32)
        self.next_obs = np.zeros((size, *shape), dtype=np.float32)
        self.actions = np.zeros(size, dtype=np.int64)
        self.rewards = np.zeros(size, dtype=np.float32)
        self.terminations = np.zeros(size, dtype=np.float32)
        self.size, self.count = size, 0

    def add(
        self, obs: Any, next_obs: Any, action: int, reward: float, end: bool
    ) -> None:
        row = self.count % self.size
        self.obs[row], self.next_obs[row] = obs, next_obs
        self.actions[row], self.rewards[row], self.terminations[row] = (
            action,
            reward,
            end,
        )
        self.count += 1

    def sample(self, random: np.random.Generator, size: int) -> list[torch.Tensor]:
        rows = random.integers(min(self.count, self.size), size=size)
        columns = (
            self.obs,
            self.next_obs,
            self.actions,
            self.rewards,
            self.terminations,
        )
        return [torch.as_tensor(column[rows]) for column in columns]


def train(args: Args) -> tuple[QNetwork, list[float]]:
    """Return the trained network and the return of every finished episode."""
    env = gym.wrappers.RecordEpisodeStatistics(
        gym.make(args.env_id, **args.env_settings)
    )
    random = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    q_network, target_network = QNetwork(env), QNetwork(env)
    target_network.load_state_dict(q_network.state_dict())
    optimizer = torch.optim.Adam(q_network.parameters(), lr=args.learning_rate)
    buffer = ReplayBuffer(args.buffer_size, env)
    env.action_space.seed(args.seed)

    returns: list[float] = []
    obs, _ = env.reset(seed=args.seed)
    for step in range(args.total_steps):
        share = min(1.0, step / (args.exploration_fraction * args.total_steps))
        epsilon = args.start_epsilon + share * (args.end_epsilon - args.start_epsilon)
        if random.random() < epsilon:
            action = env.action_space.sample()
        else:
            with torch.no_grad():
                action = int(q_network(torch.as_tensor(obs)[None]).argmax())
        next_obs, reward, terminated, truncated, info = env.step(action)
        buffer.add(obs, next_obs, action, float(reward), terminated)
        obs = next_obs
        if terminated or truncated:
            returns.append(float(info["episode"]["r"]))
            obs, _ = env.reset()

        if step >= args.learning_starts:
            b_obs, b_next, b_actions, b_rewards, b_ends = buffer.sample(
                random, args.batch_size
            )
            with torch.no_grad():
                best = target_network(b_next).max(dim=1).values
                td_target = b_rewards + args.gamma * best * (1 - b_ends)
            old = q_network(b_obs).gather(1, b_actions[:, None]).squeeze(1)
            loss = F.mse_loss(td_target, old)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
        if step % args.target_network_steps == 0:
            target_network.load_state_dict(q_network.state_dict())
    env.close()
    return q_network, returns
