"""A user's training loop as an environment, and PPO on it.

    python examples/own_training.py

The training is a classifier on a synthetic table. The environment needs only
`make_trainer`: four functions, and two more for agents that undo.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn

from lr_gym import wrap_training
from lr_gym.trainers.custom import WrappedTrainer

FEATURES, CLASSES, BATCH = 20, 5, 64


def make_table(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs (size, 20) and classes (size,), labelled by a random network."""
    teacher = torch.Generator().manual_seed(0)
    hidden = torch.randn(FEATURES, 16, generator=teacher)
    head = torch.randn(16, CLASSES, generator=teacher)
    inputs = torch.randn(
        size, FEATURES, generator=torch.Generator().manual_seed(1 + seed)
    )
    return inputs, ((inputs @ hidden).tanh() @ head).argmax(dim=1)


def make_trainer() -> WrappedTrainer:
    """Return the training of a small network by SGD."""
    inputs, classes = make_table(4_096, seed=0)
    val_inputs, val_classes = make_table(1_024, seed=1)
    model = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = torch.Generator()

    def reset(seed: int) -> None:
        weights = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            scale = 0.1 if parameter.dim() > 1 else 0.0
            nn.init.normal_(parameter, std=scale, generator=weights)
        optimizer.state.clear()
        batches.manual_seed(seed)

    def train(iterations: int) -> float:
        losses = []
        for _ in range(iterations):
            batch = torch.randint(len(inputs), (BATCH,), generator=batches)
            loss = nn.functional.cross_entropy(model(inputs[batch]), classes[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def set_learning_rate(learning_rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate

    @torch.no_grad()
    def evaluate() -> float:
        return float(nn.functional.cross_entropy(model(val_inputs), val_classes))

    def get_state() -> tuple[object, object]:
        return model.state_dict(), optimizer.state_dict()

    def set_state(state: tuple[dict[str, Tensor], dict[str, object]]) -> None:
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])

    return wrap_training(
        reset=reset,
        train=train,
        evaluate=evaluate,
        set_learning_rate=set_learning_rate,
        get_state=get_state,
        set_state=set_state,
    )


def make_env() -> gym.Env:
    """Return the environment: 20 decisions, starting far too low."""
    return gym.make(
        "LRTuningEnv-v0",
        trainer=make_trainer(),
        learning_rate=1e-3,
        max_iters=400,
        eval_interval=20,
        warmup_iters=0,
        features=("progress", "log_learning_rate", "loss_slope"),
    )


def final_loss(env: gym.Env, model: PPO | None, seed: int) -> float:
    """Return the final loss of one run; without a model, the learning rate is kept."""
    observation, info = env.reset(seed=seed)
    ended = False
    while not ended:
        action = 1 if model is None else int(model.predict(observation)[0])
        observation, _, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
    return float(info["val_loss"])


def main(arguments: list[str] | None = None) -> float:
    """Train PPO on whole runs; return its mean final loss on new seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200, help="runs to learn from")
    episodes = parser.parse_args(arguments).episodes
    env = make_env()
    model = PPO("MlpPolicy", env, n_steps=200, batch_size=50, gamma=1.0, seed=0)
    model.learn(20 * episodes)
    seeds = range(1_000, 1_005)
    constant = sum(final_loss(env, None, seed) for seed in seeds) / len(seeds)
    learned = sum(final_loss(env, model, seed) for seed in seeds) / len(seeds)
    print(
        f"val_loss: {constant:.3f} at the initial learning rate, {learned:.3f} with PPO"
    )
    return learned


if __name__ == "__main__":
    main()
