"""Somebody else's loop, from a wrong rate, against the same loop with its rate tuned.

    python -m benchmarks.controller.foreign_loops

The three scripts of `examples/` (plain PyTorch, Hugging Face, Lightning), each without
the controller at 8 learning rates (constant, but for Hugging Face's linear decay), and
with it from rates that are ten times too high and ten times too low. The tuned rate is
the best for the very seeds that are reported: the comparison favours it. Finished runs
are kept in the result file, so that the same command goes on where it was.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.results_file import write_json, write_result

LOOPS = ("plain_pytorch", "huggingface_trainer", "lightning_module")
RATES = tuple(0.01 * 2.0**power for power in range(-4, 4))
GOOD = 0.01  # near the best rate of all three
WRONG = {"from 10 times too high": 10 * GOOD, "from 10 times too low": GOOD / 10}


@dataclass
class Args:
    """Run the three loops at all rates, with and without the controller."""

    seeds: int = 5
    """Runs of each."""
    iterations: int = 600
    """Updates per run."""
    workers: int = os.cpu_count() or 1
    """Processes, of one thread each."""
    out: Path = Path("benchmarks/results/controller/foreign_loops.json")
    """Where the result goes."""


@dataclass(frozen=True)
class Run:
    """One run of a script."""

    loop: str
    rate: float
    seed: int
    controlled: bool

    @property
    def key(self) -> str:
        """Its name in the result file."""
        how = "controlled" if self.controlled else "constant"
        return f"{self.loop} {how} {self.rate:g} {self.seed}"


def final_loss(run: Run, iterations: int) -> float:
    """Run the script; return its final validation loss, inf where that is no number."""
    torch.set_num_threads(1)
    arguments = ["--iterations", str(iterations), "--learning-rate", str(run.rate)]
    arguments += ["--seed", str(run.seed)]
    arguments += [] if run.controlled else ["--no-controller"]
    script = importlib.import_module(f"examples.{run.loop}")
    with contextlib.redirect_stdout(io.StringIO()):
        loss = float(script.main(arguments))
    return loss if np.isfinite(loss) else float("inf")


def planned(seeds: int) -> list[Run]:
    """Return all runs."""
    ways = [(rate, False) for rate in RATES] + [(rate, True) for rate in WRONG.values()]
    return [
        Run(loop, rate, seed, controlled)
        for loop in LOOPS
        for rate, controlled in ways
        for seed in range(seeds)
    ]


def summarize(losses: dict[str, float], seeds: int) -> dict[str, Any]:
    """Return per loop the tuned rate, and the controller's distance to it."""
    found: dict[str, Any] = {}
    for loop in LOOPS:
        by_rate = {
            rate: [losses[Run(loop, rate, s, False).key] for s in range(seeds)]
            for rate in RATES
        }
        best = min(by_rate, key=lambda rate: float(np.mean(by_rate[rate])))
        own: dict[str, Any] = {"tuned_rate": best, "tuned": by_rate[best]}
        for name, rate in WRONG.items():
            runs = [losses[Run(loop, rate, s, True).key] for s in range(seeds)]
            own[name] = runs
            own[f"{name}, minus tuned"] = float(np.mean(runs) - np.mean(by_rate[best]))
        found[loop] = own
    return found


def main(args: Args) -> dict[str, Any]:
    """Run what is missing; print and write the result."""
    known: dict[str, float] = {}
    settings = {"iterations": args.iterations}
    if args.out.exists():
        content = json.loads(args.out.read_text(encoding="utf-8"))
        if content["settings"] != settings:
            raise SystemExit(f"error: {args.out} is of {content['settings']}")
        known = content["final_val_loss"]
    missing = [run for run in planned(args.seeds) if run.key not in known]
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = {pool.submit(final_loss, run, args.iterations): run for run in missing}
        for job in tqdm(as_completed(jobs), total=len(jobs)):
            known[jobs[job].key] = job.result()
            content = {"settings": settings, "final_val_loss": known}
            write_json(args.out, content)
    summary = summarize(known, args.seeds)
    result = {
        "settings": settings,
        "final_val_loss": known,
        "loops": summary,
        "args": {k: str(v) for k, v in asdict(args).items()},
    }
    result = write_result(args.out, result)
    for loop, own in summary.items():
        print(f"{loop}: tuned {np.mean(own['tuned']):.4f} at {own['tuned_rate']:g}")
        for name in WRONG:
            print(f"  {name}: {own[f'{name}, minus tuned']:+.4f}")
    return result


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
