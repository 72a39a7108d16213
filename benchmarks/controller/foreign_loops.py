"""The controller in users' loops, against the same loops with a tuned learning rate.

    python -m benchmarks.controller.foreign_loops

The loops are three scripts of `examples/`: plain PyTorch, Hugging Face and Lightning.
Each runs without the controller at 8 learning rates (constant, but linear decay in
Hugging Face), and with it from learning rates ten times too high and ten times too low.
The tuned learning rate is the best on the reported seeds themselves, so the comparison
favours tuning. Finished runs stay in the result file; the same command continues. Runs
that other code made run again; those without the controller use only the scripts.
"""

from __future__ import annotations

import contextlib
import io
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from agents.command_line import one_line_errors, parse_command_line
from benchmarks.dependencies import Sources
from benchmarks.results_file import write_json, write_result
from lr_gym.files import only_process, read_json_object
from lr_gym.progress import ProgressBar

LOOPS = ("plain_pytorch", "huggingface_trainer", "lightning_module")
LEARNING_RATES = tuple(0.01 * 2.0**power for power in range(-4, 4))
GOOD_LR = 0.01  # near the best learning rate of all three
CONTROLLER_STARTS = {
    "from 10 times too high": 10 * GOOD_LR,
    "from 10 times too low": GOOD_LR / 10,
}


@dataclass
class Args:
    """Run the three loops at all learning rates, with and without the controller."""

    seeds: int = 5
    """Runs of each case."""
    iterations: int = 600
    """Updates per run."""
    workers: int = os.cpu_count() or 1
    """Processes, each with one thread."""
    out: Path = Path("benchmarks/results/controller/foreign_loops.json")
    """The result file."""


@dataclass(frozen=True)
class Run:
    """One run of a script."""

    loop: str
    rate: float
    seed: int
    controlled: bool

    @property
    def key(self) -> str:
        """The name of the run in the result file."""
        how = "controlled" if self.controlled else "constant"
        return f"{self.loop} {how} {self.rate:g} {self.seed}"


def example(loop: str) -> ModuleType:
    """Return the script of a loop; only its own library is imported."""
    # Written out, so that the hash of the code covers them.
    if loop == "plain_pytorch":
        from examples import plain_pytorch

        return plain_pytorch
    if loop == "huggingface_trainer":
        from examples import huggingface_trainer

        return huggingface_trainer
    from examples import lightning_module

    return lightning_module


def codes() -> dict[str, str]:
    """Return a hash of the code of the runs with the controller, and without it."""
    sources = Sources()
    scripts = [f"examples.{loop}" for loop in LOOPS]
    return {
        "controlled": sources.code_hash(*scripts),
        "constant": sources.code_hash(*scripts, within="examples"),
    }


def finished(content: dict[str, Any], code: dict[str, str]) -> dict[str, float]:
    """Return the runs of a result file that today's code would repeat."""
    made = content.get("code")
    known = made if isinstance(made, dict) else {}
    old = {kind for kind in code if known.get(kind) != code[kind]}
    if old:
        print(f"other code made the runs of {sorted(old)}: they run again")
    losses: dict[str, float] = content["final_val_loss"]
    return {
        key: loss
        for key, loss in losses.items()
        if not any(f" {kind} " in key for kind in old)
    }


def final_loss(run: Run, iterations: int) -> float:
    """Run the script; return its final validation loss, inf if it is not finite."""
    torch.set_num_threads(1)
    arguments = ["--iterations", str(iterations), "--learning-rate", str(run.rate)]
    arguments += ["--seed", str(run.seed)]
    arguments += [] if run.controlled else ["--no-controller"]
    script = example(run.loop)
    with contextlib.redirect_stdout(io.StringIO()):
        loss = float(script.main(arguments))
    return loss if np.isfinite(loss) else float("inf")


def plan(seeds: int) -> list[Run]:
    """Return all runs."""
    cases = [(rate, False) for rate in LEARNING_RATES] + [
        (rate, True) for rate in CONTROLLER_STARTS.values()
    ]
    return [
        Run(loop, rate, seed, controlled)
        for loop in LOOPS
        for rate, controlled in cases
        for seed in range(seeds)
    ]


def summarize(losses: dict[str, float], seeds: int) -> dict[str, Any]:
    """Return per loop the tuned learning rate, and the controller minus tuning."""
    summary: dict[str, Any] = {}
    for loop in LOOPS:
        by_rate = {
            rate: [losses[Run(loop, rate, s, False).key] for s in range(seeds)]
            for rate in LEARNING_RATES
        }
        best = min(by_rate, key=lambda rate: float(np.mean(by_rate[rate])))
        result: dict[str, Any] = {"tuned_rate": best, "tuned": by_rate[best]}
        for name, rate in CONTROLLER_STARTS.items():
            runs = [losses[Run(loop, rate, s, True).key] for s in range(seeds)]
            result[name] = runs
            result[f"{name}, minus tuned"] = float(
                np.mean(runs) - np.mean(by_rate[best])
            )
        summary[loop] = result
    return summary


def main(args: Args) -> dict[str, Any]:
    """Run unfinished runs; print and write the result."""
    lock = args.out.with_name(f".{args.out.name}.running")
    try:
        with one_line_errors(), only_process(lock):
            return run_and_write(args)
    except BrokenProcessPool as error:
        raise SystemExit(
            "error: a worker died; the system kills processes when memory is short: "
            "try fewer --workers. Finished runs are kept; the same command continues"
        ) from error


def run_and_write(args: Args) -> dict[str, Any]:
    """Do what `main` does, while no other process writes the file."""
    losses: dict[str, float] = {}
    settings = {"iterations": args.iterations}
    code = codes()
    if args.out.exists():
        content = read_json_object(args.out)
        if content.get("settings") != settings:
            raise SystemExit(
                f"error: {args.out} has runs with {content.get('settings')}"
            )
        losses = finished(content, code)
    missing = [run for run in plan(args.seeds) if run.key not in losses]
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = {pool.submit(final_loss, run, args.iterations): run for run in missing}
        bar = ProgressBar(iterable=as_completed(jobs), total=len(jobs))
        for job in bar:
            losses[jobs[job].key] = job.result()
            content = {"settings": settings, "code": code, "final_val_loss": losses}
            write_json(args.out, content)
    summary = summarize(losses, args.seeds)
    result = {
        "settings": settings,
        "code": code,
        "final_val_loss": losses,
        "loops": summary,
        "args": {k: str(v) for k, v in asdict(args).items()},
    }
    result = write_result(args.out, result)
    for loop, loop_result in summary.items():
        print(
            f"{loop}: tuned {np.mean(loop_result['tuned']):.4f} at "
            f"{loop_result['tuned_rate']:g}"
        )
        for name in CONTROLLER_STARTS:
            print(f"  {name}: {loop_result[f'{name}, minus tuned']:+.4f}")
    return result


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
