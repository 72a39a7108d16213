"""How much faster two workers finish a comparison's jobs than one does.

    python -m benchmarks.speed.scale_out

The same jobs, a population each that fits one core, run on one worker and on several,
in turns. Both start their processes anew every time, as a comparison does. The records
must be the same, times aside.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.executors import ProcessExecutor, run_all
from benchmarks.comparison.jobs import Job, task_learning_rate
from benchmarks.comparison.protocol import Task
from benchmarks.results_file import write_result

SCHEDULES = ("constant", "cosine", "linear", "wsd")


@dataclass
class Args:
    """Time one worker against several."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: str = "tiny"
    """tiny, mini or paper."""
    jobs: int = 8
    """Populations to train."""
    size: int = 8
    """Members of each."""
    workers: int = os.cpu_count() or 1
    """Processes compared with one."""
    repeats: int = 3
    """Turns of each."""
    max_iters: int = 300
    """Length of a run."""
    out: Path = Path("benchmarks/results/speed/scale_out.json")
    """Where the result is kept."""


def make_jobs(args: Args) -> list[Job]:
    """Return jobs of one shape, each with seeds of its own."""
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


def timed(jobs: list[Job], workers: int) -> tuple[float, list[Any]]:
    """Run all `jobs` in a fresh folder; return seconds and the runs' numbers."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = run_all(lambda _: jobs, Path(folder), ProcessExecutor(workers))
        seconds = time.perf_counter() - started
    return seconds, [run["curves"] for job in done.values() for run in job["runs"]]


def main(args: Args) -> None:
    """Take turns, check, print, keep."""
    if min(args.jobs, args.size, args.repeats) < 1 or args.workers < 2:
        raise SystemExit(
            "error: --jobs, --size and --repeats must be at least 1 and --workers at "
            f"least 2, got {args.jobs}, {args.size}, {args.repeats}, {args.workers}"
        )
    jobs = make_jobs(args)
    seconds: dict[int, list[float]] = {1: [], args.workers: []}
    found = []
    for _ in range(args.repeats):
        for workers, taken in seconds.items():
            duration, curves = timed(jobs, workers)
            taken.append(duration)
            found.append(curves)
    if any(curves != found[0] for curves in found):
        raise SystemExit("error: the numbers depend on who computed them")
    ratios = [one / more for one, more in zip(*seconds.values(), strict=True)]
    speedup = {
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
    }
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
    import tyro

    main(tyro.cli(Args, description=__doc__))
