"""Decisions per second of simulated training, on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.surrogate.speed

Whole episodes through the environments, with their resets. With random actions runs
diverge, so members are soon at different points of their runs. "In step" means that all
members keep their learning rate. Times are CPU times, which other processes change less
than wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.command_line import parse_command_line
from benchmarks.results_file import write_result
from lr_gym import LRTuningEnv, LRTuningVectorEnv, SurrogateTrainer
from lr_gym.envs.factory import build_episodes
from lr_gym.surrogate.law_files import packaged_law


@dataclass
class Args:
    """Time the surrogate through the environments."""

    env: str = "shakespeare"
    """A corpus that has a fitted law."""
    scale: str = "tiny"
    """A scale that has a fitted law."""
    sizes: tuple[int, ...] = (64, 1024)
    """Numbers of members of the vector environment."""
    steps: int = 2_000
    """Steps per measurement; ten times as many with one member."""
    repeats: int = 5
    """Measurements of each case."""
    out: Path = Path("benchmarks/results/surrogate/speed.json")
    """The result file."""


def vector_steps(args: Args, size: int, in_step: bool = False) -> int:
    """Step the vector environment; return the number of decisions."""
    envs = LRTuningVectorEnv(
        size, corpus=args.env, scale=args.scale, trainer="surrogate"
    )
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 3, (64, size))
    if in_step:
        actions[:] = 1  # keep
    decisions = 0
    for step in range(args.steps):
        *_, infos = envs.step(actions[step % 64])
        decisions += int(np.count_nonzero(infos["iteration"]))
    return decisions


def single_steps(args: Args) -> int:
    """Step `LRTuningEnv` without wrappers; return the number of decisions."""
    env = LRTuningEnv(corpus=args.env, scale=args.scale, trainer="surrogate")
    actions = np.random.default_rng(0).integers(0, 3, 10 * args.steps).tolist()
    env.reset(seed=0)
    for action in actions:
        if env.step(action)[2]:
            env.reset()
    return len(actions)


def episode_steps(args: Args) -> int:
    """Step `EpisodeBatch` with one member; return the number of decisions."""
    episodes = build_episodes(1, scale=args.scale, corpus=args.env, trainer="surrogate")
    generator = np.random.default_rng(0)
    action_arrays = [np.array([action]) for action in range(3)]
    actions = generator.integers(0, 3, 10 * args.steps).tolist()
    episodes.reset([0], [generator], {})
    for action in actions:
        episodes.step(action_arrays[action])
        episodes.observe()
        if episodes.state.terminated[0]:
            episodes.reset([0], [generator], {})
    return len(actions)


def trainer_steps(args: Args) -> int:
    """Train and evaluate one simulated run; return the number of chunks."""
    trainer = SurrogateTrainer(packaged_law(args.env, args.scale))
    training = trainer.law.training
    chunk = np.array([training.eval_interval])
    learning_rates = [
        np.array([training.learning_rate * 2.0**step]) for step in range(-3, 4)
    ]
    choices = (
        np.random.default_rng(0)
        .integers(0, len(learning_rates), 10 * args.steps)
        .tolist()
    )
    iteration = 0
    for choice in choices:
        if iteration >= training.max_iters:
            trainer.reset([0], [0])
            iteration = 0
        trainer.train(chunk, learning_rates[choice])
        trainer.evaluate()
        iteration += training.eval_interval
    return len(choices)


def measure(args: Args, run: Callable[[], int]) -> dict[str, float]:
    """Return decisions per second of CPU time, best and median."""
    speeds = []
    for _ in range(args.repeats):
        started = time.process_time()
        decisions = run()
        speeds.append(decisions / (time.process_time() - started))
    return {"best": max(speeds), "median": float(np.median(speeds))}


def main(args: Args) -> dict[str, Any]:
    """Measure, print, write the result."""
    result: dict[str, Any] = {"decisions_per_second": {}}
    cases: dict[str, Callable[[], int]] = {
        "SurrogateTrainer, 1 member": lambda: trainer_steps(args),
        "Episodes, 1 member": lambda: episode_steps(args),
        "LRTuningEnv": lambda: single_steps(args),
    }
    for size in args.sizes:
        name = f"LRTuningVectorEnv, {size}"
        cases[f"{name}, in step"] = partial(vector_steps, args, size, in_step=True)
        cases[f"{name}, random"] = partial(vector_steps, args, size)
    for name, run in cases.items():
        speed = measure(args, run)
        result["decisions_per_second"][name] = speed
        print(f"{name:34s} {speed['best']:12,.0f} (median {speed['median']:,.0f})")
    result["settings"] = {
        "env": args.env,
        "scale": args.scale,
        "steps": args.steps,
        "repeats": args.repeats,
    }
    return write_result(args.out, result)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
