"""Jobs over initial learning rates and seeds, and their options on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.comparison.jobs import Job
from benchmarks.comparison.protocol import Task
from lr_gym.trainers.base import FloatArray

FIRST_SEED = 5_000  # no seed of tuning, learning or testing


@dataclass
class RunOptions:
    """Settings of all runs, and the workers that run them."""

    settings: str = "{}"
    """Further keywords of gym.make for every run, as JSON."""
    workers: int | None = None
    """Processes; default: one per core, or one in all with a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to run on; local starts one here."""
    gpus: float = 0.0
    """With --ray: share of a GPU that a job needs."""
    fresh: bool = False
    """Run jobs again that were made by other code; old files move to the folder old."""


def rate_job(
    task: Task, method: str, learning_rates: Sequence[float], seeds: Sequence[int]
) -> Job:
    """Return one job that runs every learning rate with every seed."""
    runs = [(rate, seed) for rate in learning_rates for seed in seeds]
    return task.job(
        method,
        "test",
        [seed for _, seed in runs],
        learning_rates=tuple(rate for rate, _ in runs),
    )


def final_losses(record: dict[str, Any], seeds: int) -> FloatArray:
    """Return the final validation losses of a `rate_job`, (rates, seeds)."""
    losses = [run["metrics"]["final_val_loss"] for run in record["runs"]]
    return np.reshape(losses, (-1, seeds))
