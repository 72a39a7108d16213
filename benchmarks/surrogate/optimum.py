"""Do agents find the exact optimum? PPO and a Q-table against exhaustive search.

    python -m benchmarks.surrogate.optimum

In simulated training without noise, with 12 decisions, the best of all 3^12 sequences
of actions is the exact optimum of the environment. Each agent learns in the same
environment with several seeds. Its regret is that of its greedy run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agents.agent import Agent, run_episode
from agents.command_line import parse_command_line
from agents.deep_rl import DeepAgent
from agents.tabular_q import TabularQ
from benchmarks.results_file import write_result
from lr_gym import LossLaw
from lr_gym.surrogate.law_files import packaged_law

NOISELESS: dict[str, Any] = {
    "efficiency_spread": 0.0,
    "tolerance_spread": 0.0,
    "jitter": 0.0,
    "batch_noise": 0.0,
}


@dataclass
class Args:
    """Search all sequences of actions, and train agents."""

    env: str = "shakespeare"
    """A corpus that has a fitted law."""
    scale: str = "tiny"
    """A scale that has a fitted law."""
    decisions: int = 12
    """Decisions per episode; 3 to this power are simulated."""
    episodes: int = 12_000
    """Simulated runs per agent and seed."""
    seeds: int = 3
    """Seeds per agent."""
    out: Path = Path("benchmarks/results/surrogate/optimum.json")
    """The result file."""


def noiseless(law: LossLaw) -> LossLaw:
    """Return the law of an average seed, without noise."""
    return replace(law, constants=replace(law.constants, **NOISELESS))


def optimum(settings: dict[str, Any], decisions: int) -> tuple[float, list[int]]:
    """Return the lowest final loss of all sequences of actions, and its sequence."""
    count = 3**decisions
    envs = gym.make_vec("LRTuningEnv-v0", num_envs=count, **settings)
    envs.reset(seed=0)
    sequence = np.arange(count)
    for decision in range(decisions):
        *_, infos = envs.step(sequence // 3**decision % 3)
    losses = np.where(infos["diverged"], np.inf, infos["val_loss"])
    best = int(losses.argmin())
    return float(losses[best]), [best // 3**d % 3 for d in range(decisions)]


def learn(
    agent: Agent, seed: int, settings: dict[str, Any], episodes: int
) -> dict[str, Any]:
    """Train an agent; return the final loss of its greedy run, and its cost."""
    env = gym.make("LRTuningEnv-v0", **{**settings, **agent.settings})
    env.reset(seed=seed)
    started = time.perf_counter()
    agent.train(env, episodes)
    seconds = time.perf_counter() - started
    final = run_episode(env, agent, seed=0, learning=False)[-1]
    return {
        "final_val_loss": float(final["val_loss"]),
        "episodes": agent.training_episodes,
        "seconds": seconds,
    }


def makers(args: Args) -> dict[str, Callable[[int], Agent]]:
    """Return what makes an untrained agent from a seed, by name."""
    return {
        # Simulated runs are many, so exploration is higher than for real runs.
        "ppo": lambda seed: DeepAgent(
            seed,
            algo="ppo",
            num_envs=32,
            batch_size=192,
            n_epochs=5,
            ent_coef=0.02,
        ),
        "q_improved": lambda seed: TabularQ(seed, episodes=args.episodes),
    }


def main(args: Args) -> dict[str, Any]:
    """Search, train, print, write the result."""
    law = noiseless(packaged_law(args.env, args.scale))
    interval = law.training.max_iters // args.decisions
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "law.json"
        law.save(path)
        settings = {"trainer": str(path), "eval_interval": interval}
        best, actions = optimum(settings, args.decisions)
        print(f"optimum of 3^{args.decisions} sequences: {best:.4f}, {actions}")
        agents: dict[str, list[dict[str, Any]]] = {}
        for name, make in makers(args).items():
            agents[name] = []
            for seed in range(args.seeds):
                result = learn(make(seed), seed, settings, args.episodes)
                result["regret"] = result["final_val_loss"] - best
                agents[name].append(result)
                print(
                    f"{name} {seed}: {result['final_val_loss']:.4f}, regret "
                    f"{result['regret']:.4f} after {result['episodes']} episodes, "
                    f"{result['seconds']:.0f} s"
                )
    content = {
        "settings": {"env": args.env, "scale": args.scale, "decisions": args.decisions},
        "optimum": {"final_val_loss": best, "actions": actions},
        "agents": agents,
    }
    return write_result(args.out, content)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
