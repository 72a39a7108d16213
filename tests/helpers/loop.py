"""A plain PyTorch training loop for tests of the controller: a small regression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lr_gym import MDPConfig
from lr_gym.controllers import ActionPolicy, PolicyLR


class Always:
    """Chooses the same action at every decision and records the observations."""

    def __init__(self, action: int) -> None:
        self.chosen_action = action
        self.seen: list[list[float]] = []

    def __call__(self, observation: Any, decisions: int) -> int:
        self.seen.append(observation.tolist())
        return self.chosen_action


def always(action: int, **settings: Any) -> ActionPolicy:
    """Return a policy that takes `action` at every decision."""
    return ActionPolicy(MDPConfig(**settings), Always(action))


def small_model(seed: int = 0) -> nn.Module:
    """Return a model with two layers and with buffers that are no parameters."""
    torch.manual_seed(seed)  # initialises the layers
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def two_groups(model: nn.Module, learning_rate: float = 1e-2) -> torch.optim.Optimizer:
    """Return AdamW with two parameter groups; the second learns 3 times as fast."""
    parameters = list(model.parameters())
    groups = [
        {"params": parameters[:2], "lr": learning_rate},
        {"params": parameters[2:], "lr": 3 * learning_rate},
    ]
    return torch.optim.AdamW(groups)


class Loop:
    """A training loop on a small regression, with its own data stream."""

    def __init__(self, seed: int = 0, rate: float = 1e-2) -> None:
        self.model = small_model(seed)
        self.optimizer = two_groups(self.model, rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.used: list[list[float]] = []  # by the optimizer

    def loss(self, generator: torch.Generator, size: int) -> Tensor:
        x = torch.randn(size, 4, generator=generator)
        error: Tensor = self.model(x) - x[:, :1] * x[:, 1:2]
        return error.square().mean()

    def evaluate(self) -> float:
        self.model.eval()
        with torch.no_grad():
            value = self.loss(torch.Generator().manual_seed(99), 256)
        self.model.train()
        return float(value)

    def update(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.generator, 32).backward()  # type: ignore[no-untyped-call]  # torch's own
        self.used.append([group["lr"] for group in self.optimizer.param_groups])
        self.optimizer.step()

    def run(self, controller: PolicyLR, until: int) -> None:
        """Train until `controller` has seen `until` updates."""
        while controller.iteration < until:
            if controller.needs_evaluation:
                controller.step(self.evaluate())
            self.update()

    def weights(self) -> list[Tensor]:
        return [value.clone() for value in self.model.state_dict().values()]


def settings(**overrides: Any) -> dict[str, Any]:
    """Return the controller's keywords for a run of 60 updates."""
    return {"interval": 5, "max_iters": 60} | overrides


def same(one: Any, two: Any) -> bool:
    """Return whether nested states are equal to the last bit, except learning rates."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        keys = [key for key in one if key != "lr"]
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in keys)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)
