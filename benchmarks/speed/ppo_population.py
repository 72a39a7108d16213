"""PPO on one population against PPO on separate environments: curves and speed.

    python -m benchmarks.speed.ppo_population

Two PPO learners of stable-baselines3 with the same seeds take turns, rollout by
rollout. One has a population of `num_envs` members, the other a DummyVecEnv of as many
single environments. Needs the extra ``agents``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

import lr_gym  # noqa: F401 - registers the environments
from agents.command_line import parse_command_line
from benchmarks.results_file import write_result
from benchmarks.speed.timing import spread
from lr_gym.sb3 import make_vec_env

FEATURES = ("log_excess_loss", "log_learning_rate", "progress")


@dataclass
class Args:
    """Train both PPO learners in turns."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: str = "tiny"
    """tiny, mini or paper."""
    num_envs: int = 8
    """Members of the population, and number of single environments."""
    rollouts: int = 6
    """Updates of PPO; each takes one episode of every member."""
    seeds: int = 3
    """Repetitions."""
    max_iters: int = 200
    """Iterations per episode."""
    eval_interval: int = 20
    """Iterations per decision."""
    precision: str = "float32"
    """Number format of training. In bfloat16 the rounding of a member depends on the
    population, so the curves are equal only in distribution."""
    out: Path = Path("benchmarks/results/speed/ppo_population.json")
    """The result file."""


def make_learners(args: Args, seed: int) -> dict[str, PPO]:
    """Return the two learners; they differ only in their environments."""
    env_id = f"LRTuning-{args.env}-v0"
    settings: dict[str, Any] = {
        "scale": args.scale,
        "features": FEATURES,
        "reward": "log_loss_reduction",
        "max_iters": args.max_iters,
        "eval_interval": args.eval_interval,
        "precision": args.precision,
    }
    separate = DummyVecEnv(
        [lambda: Monitor(gym.make(env_id, **settings))] * args.num_envs
    )
    population = VecMonitor(make_vec_env(env_id, args.num_envs, **settings))
    decisions = -(-args.max_iters // args.eval_interval)

    def learner(envs: VecEnv) -> PPO:
        return PPO(
            "MlpPolicy",
            envs,
            n_steps=decisions,
            batch_size=decisions * args.num_envs // 2,
            gamma=1.0,
            seed=seed,
            device="cpu",
        )

    return {"population": learner(population), "separate": learner(separate)}


def train(args: Args, seed: int) -> dict[str, dict[str, list[float]]]:
    """Return the mean return and the seconds of every rollout, by learner."""
    learners = make_learners(args, seed)
    steps = args.num_envs * -(-args.max_iters // args.eval_interval)
    curves: dict[str, dict[str, list[float]]] = {
        name: {"mean_return": [], "seconds": []} for name in learners
    }
    for rollout in range(args.rollouts):
        for name, learner in learners.items():
            # Both use torch's global generator: give both the same state.
            set_random_seed(1_000 * seed + rollout)
            started = time.perf_counter()
            learner.learn(steps, reset_num_timesteps=False)
            curves[name]["seconds"].append(time.perf_counter() - started)
            finished = list(learner.ep_info_buffer or [])[-args.num_envs :]
            mean = float(np.mean([episode["r"] for episode in finished]))
            curves[name]["mean_return"].append(mean)
    for learner in learners.values():
        learner.env.close()  # type: ignore[union-attr]  # it has an env
    return curves


def main(args: Args) -> None:
    """Train, print and write the result."""
    runs = []
    for seed in range(args.seeds):
        curves = train(args, seed)
        runs.append(curves)
        for name, curve in curves.items():
            shown = " ".join(f"{value:.4f}" for value in curve["mean_return"])
            middle = np.median(curve["seconds"])
            print(f"seed {seed}, {name:10s}: {shown}  ({middle:.1f} s per rollout)")
    returns = {
        name: np.array([run[name]["mean_return"] for run in runs]) for name in runs[0]
    }
    seconds = {
        name: np.array([run[name]["seconds"] for run in runs]) for name in runs[0]
    }
    ratio = seconds["separate"] / seconds["population"]
    result = {
        "args": {**asdict(args), "out": None},
        "runs": runs,
        "largest_difference_in_mean_return": float(
            np.abs(returns["population"] - returns["separate"]).max()
        ),
        "sd_of_final_mean_return_over_seeds": float(
            returns["separate"][:, -1].std(ddof=1)
        ),
        "speedup": spread(ratio.ravel().tolist()),
    }
    print(
        f"largest difference {result['largest_difference_in_mean_return']:.4f}; "
        f"speed-up {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
    )
    write_result(args.out, result)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
