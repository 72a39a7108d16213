"""What do stock learners reach with their own defaults? Returns by observation.

    python -m benchmarks.clients.stock_learners references
    python -m benchmarks.clients.stock_learners sim --cleanrl CHECKOUT
    python -m benchmarks.clients.stock_learners real --cleanrl CHECKOUT --steps 600

Each learner runs unmodified in a process of its own: PPO, DQN and A2C of
stable-baselines3, and CleanRL's `ppo.py` and `dqn.py` from a checkout of CleanRL. It
gets an id, a number of steps and a seed. All else is its default. An episode is 20
decisions on `markov` at `tiny`. Needs the extras ``agents`` and ``tensorboard``.

``references`` evaluates what the returns are compared with. Every call draws the figure
again.
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.command_line import parse_command_line
from benchmarks.clients.learning_curves import figure
from benchmarks.clients.recorded import RETURNS_FILE, recorded_id
from benchmarks.clients.references import (
    SEQUENCES,
    real_references,
    simulated_references,
)
from benchmarks.paths import ROOT
from benchmarks.provenance import provenance
from benchmarks.results_file import read_results, update_result
from lr_gym.files import write_text

BINS = 50  # points of a learning curve
DECISIONS = 20  # of an episode
REAL_SEEDS = 3  # of the references
LAST = 0.02  # share of the episodes that the last return is a mean of
MIN_LAST = 10  # episodes
SB3_SCRIPT = """
import sys
import stable_baselines3
name, env_id, steps, seed = sys.argv[1:]
learner = getattr(stable_baselines3, name)
learner("MlpPolicy", env_id, seed=int(seed), device="cpu").learn(int(steps))
"""
LEARNERS = ("sb3-ppo", "sb3-dqn", "sb3-a2c", "cleanrl-ppo", "cleanrl-dqn")


@dataclass
class Args:
    """Run stock learners."""

    kind: Literal["sim", "real", "references"]
    """sim for simulated training, real for training."""
    cleanrl: Path | None = None
    """A checkout of CleanRL; without it CleanRL's learners are left out."""
    learners: tuple[str, ...] = LEARNERS
    """Which learners."""
    observations: tuple[str, ...] = ("default", "learning")
    """default is (val_loss, learning_rate); learning adds the progress."""
    steps: int = 100_000
    """Decisions per run."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One run each."""
    out: Path = Path("benchmarks/results/clients/stock_learners.json")
    """The result file; every finished run is added to it."""


def command(
    learner: str, env_id: str, steps: int, seed: int, cleanrl: Path
) -> list[str]:
    """Return the command that trains a learner."""
    library, _, algorithm = learner.partition("-")
    if library == "sb3":
        words = ["-c", SB3_SCRIPT, algorithm.upper(), env_id, str(steps), str(seed)]
    else:
        script = str(cleanrl.resolve() / "cleanrl" / f"{algorithm}.py")
        words = [script, "--env-id", env_id, "--total-timesteps", str(steps)]
        words += ["--seed", str(seed), "--no-cuda"]
    return [sys.executable, *words]


def run(
    learner: str, env_id: str, steps: int, seed: int, cleanrl: Path
) -> dict[str, Any]:
    """Train a learner; return the steps and returns of its episodes, and its seconds.

    Raises:
        subprocess.CalledProcessError: The learner failed.
    """
    started, cpu_started = time.perf_counter(), child_cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        returns = Path(folder) / "returns.txt"
        subprocess.run(
            command(learner, env_id, steps, seed, cleanrl),
            cwd=folder,  # CleanRL writes its logs there
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(cleanrl.resolve())]),
                "OMP_NUM_THREADS": "1",
                RETURNS_FILE: str(returns),
            },
            stdout=subprocess.DEVNULL,
            check=True,
        )
        episodes = np.loadtxt(returns, ndmin=2)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": child_cpu_seconds() - cpu_started,
        **summary(episodes[:, 0], episodes[:, 1]),
    }


def child_cpu_seconds() -> float:
    """Return the CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def summary(steps: NDArray[Any], returns: NDArray[Any]) -> dict[str, Any]:
    """Return a learning curve of `BINS` points, and the mean return at the end."""
    parts = np.array_split(np.arange(len(steps)), min(BINS, len(steps)))
    last = max(MIN_LAST, round(LAST * len(returns)))
    return {
        "episodes": len(steps),
        "steps": [int(steps[part[-1]]) for part in parts],
        "returns": [round(float(returns[part].mean()), 5) for part in parts],
        "last_return": float(returns[-last:].mean()),
    }


def write_references(out: Path) -> None:
    """Evaluate the references in simulated and in real training."""
    settings = {"corpus": "markov", "scale": "tiny"}
    simulated = simulated_references({**settings, "trainer": "surrogate"}, DECISIONS)
    update_result(out, "sim references", simulated)
    sequences = {name: simulated[name]["actions"] for name in SEQUENCES}
    real = real_references(settings, sequences, REAL_SEEDS)
    update_result(out, "real references", {"seeds": REAL_SEEDS, **real})


def run_learners(args: Args) -> None:
    """Run every learner with every observation; write each result when it is there."""
    trainer = {"sim": "Sim", "real": "Real"}[args.kind]
    for seed, learner, observation in itertools.product(
        args.seeds, args.learners, args.observations
    ):
        if learner.startswith("cleanrl") and args.cleanrl is None:
            continue
        key = f"{args.kind} {learner} {observation}"
        result = run(
            learner,
            recorded_id(trainer, observation),
            args.steps,
            seed,
            args.cleanrl or Path(),
        )
        saved = read_results(args.out).get(key, {})
        made_by = (saved.get("decisions"), saved.get("provenance", {}).get("code"))
        runs = saved["runs"] if made_by == (args.steps, provenance()["code"]) else {}
        runs[str(seed)] = result
        update_result(args.out, key, {"decisions": args.steps, "runs": runs})
        print(
            f"{key}, seed {seed}: {result['last_return']:.3f} after "
            f"{result['episodes']} episodes, {result['seconds']:.0f} s",
            flush=True,
        )


def main(args: Args) -> None:
    """Evaluate the references or run learners; draw all results."""
    if args.kind == "references":
        write_references(args.out)
    else:
        run_learners(args)
    write_text(args.out.with_suffix(".svg"), figure(read_results(args.out)))


if __name__ == "__main__":
    import tyro

    config = (tyro.conf.PositionalRequiredArgs,)
    main(parse_command_line(Args, __doc__, config=config))
