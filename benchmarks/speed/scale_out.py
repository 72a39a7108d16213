"""Speedup of a comparison by several workers.

    python -m benchmarks.speed.scale_out

The same jobs run on one worker and on several, in turns. Each job is a population that
fits one core. Processes start in every turn, as in a comparison. The records must be
equal, except for times.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.command_line import parse_command_line
from benchmarks.comparison.executors import ProcessExecutor, run_all
from benchmarks.comparison.jobs import Job, task_learning_rate
from benchmarks.comparison.protocol import Task
from benchmarks.results_file import write_result
from benchmarks.speed.timing import spread

SCHEDULES = ("constant", "cosine", "linear", "wsd")


@dataclass
class Args:
    """Time one worker against several."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: str = "tiny"
    """tiny, mini or paper."""
    jobs: int = 8
    """Populations to train."""
    size: int = 8
    """Members of each."""
    workers: int = os.cpu_count() or 1
    """Processes to compare with one."""
    repeats: int = 3
    """Turns of each number of workers."""
    max_iters: int = 300
    """Length of a run."""
    out: Path = Path("benchmarks/results/speed/scale_out.json")
    """The result file."""


def make_jobs(args: Args) -> list[Job]:
    """Return jobs of one size with different seeds."""
    task = Task(args.env, {"scale": args.scale, "max_iters": args.max_iters})
    rate = task_learning_rate(task.job("", "", ()))
    return [
        task.job(
            SCHEDULES[number % len(SCHEDULES)],
            "tune",
            range(number * args.size, (number + 1) * args.size),
            learning_rates=(rate,) * args.size,
        )
        for number in range(args.jobs)
    ]


def time_jobs(jobs: list[Job], workers: int) -> tuple[float, list[Any]]:
    """Run all `jobs` in a new folder; return seconds and the curves of all runs."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = run_all(lambda _: jobs, Path(folder), ProcessExecutor(workers))
        seconds = time.perf_counter() - started
    return seconds, [run["curves"] for job in done.values() for run in job["runs"]]


def main(args: Args) -> None:
    """Time the jobs, compare the curves, print and write the result."""
    if min(args.jobs, args.size, args.repeats) < 1 or args.workers < 2:
        raise SystemExit(
            "error: --jobs, --size and --repeats must be at least 1 and --workers at "
            f"least 2, got {args.jobs}, {args.size}, {args.repeats}, {args.workers}"
        )
    jobs = make_jobs(args)
    seconds: dict[int, list[float]] = {1: [], args.workers: []}
    all_curves = []
    for _ in range(args.repeats):
        for workers, durations in seconds.items():
            duration, curves = time_jobs(jobs, workers)
            durations.append(duration)
            all_curves.append(curves)
    if any(curves != all_curves[0] for curves in all_curves):
        raise SystemExit("error: the curves depend on the number of workers")
    ratios = [one / more for one, more in zip(*seconds.values(), strict=True)]
    speedup = spread(ratios)
    print(
        f"{args.workers} workers: {speedup['median']:.2f} times as fast as one "
        f"({speedup['min']:.2f} to {speedup['max']:.2f}), same numbers"
    )
    result = {
        "settings": {k: v for k, v in asdict(args).items() if k != "out"},
        "seconds": seconds,
        "speedup": speedup,
    }
    write_result(args.out, result)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
