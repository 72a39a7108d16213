"""The protocol: how methods are tuned or trained, and how they are tested.

A method that does not learn spends its budget on tuning: every initial rate (peak) on
every tuning seed. The peak with the lowest mean final validation loss is tested. If it
lies at the edge of the grid, the grid is widened first.

A method that learns spends as many trainings on learning, from the task's initial rate,
once per replicate. Each replicate is tested on its share of the test seeds.

Seeds of tuning, learning and testing differ: test seeds and the test split are held
out. `plan` is a pure function of the finished records, so an interrupted comparison
continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.comparison.jobs import Job, task_learning_rate
from benchmarks.comparison.methods import Method, find_method

Records = Mapping[str, dict[str, Any]]  # by `Job.file_name`
CONTROLS = ("open_loop", "shuffled")


@dataclass(frozen=True)
class Protocol:
    """The sizes of a comparison.

    Attributes:
        peaks: Multiples of the task's initial rate that are tried.
        tune_seeds: Seeds of the tuning runs of every peak.
        test_seeds: Seeds of the test runs.
        learners: Replicates of a method that learns.
        widen: Maximal number of peaks added when the best is at an edge.
        centers: Method to the middle of its grid, a multiple; 1 if absent.
    """

    peaks: tuple[float, ...] = tuple(2.0**k for k in range(-3, 5))
    tune_seeds: tuple[int, ...] = (1_000, 1_001, 1_002)
    test_seeds: tuple[int, ...] = tuple(range(10))
    learners: int = 5
    widen: int = 4
    centers: Mapping[str, float] = field(default_factory=dict)

    @property
    def budget(self) -> int:
        """Trainings that a method may spend before it is tested."""
        return len(self.peaks) * len(self.tune_seeds)

    def grid(self, name: str, method: Method) -> list[float]:
        """Return the multiples that `method` tries, within its budget."""
        peaks = list(self.peaks)
        affordable = max(2, self.budget // (method.cost * len(self.seeds(method))))
        while len(peaks) > affordable:  # drop the outer peaks of a costly method
            peaks.pop(0 if len(peaks) % 2 == 0 else -1)
        return [peak * self.centers.get(name, 1.0) for peak in peaks]

    def seeds(self, method: Method) -> tuple[int, ...]:
        """Return the tuning seeds that `method` can afford."""
        return self.tune_seeds[: max(1, len(self.tune_seeds) // method.cost)]

    @staticmethod
    def base_rate(task: Task, method: Method) -> float:
        """Return the rate that `peaks` multiply: the task's, or an optimizer's."""
        if method.optimizer is not None and method.optimizer.learning_rate is not None:
            return method.optimizer.learning_rate
        return task_learning_rate(task.job("", "", ()))


@dataclass(frozen=True)
class Task:
    """A corpus and the settings that all methods share."""

    env: str
    settings: Mapping[str, Any]

    def job(self, method: str, phase: str, seeds: Sequence[int], **more: Any) -> Job:
        """Return a job on this task."""
        return Job(method, self.env, phase, tuple(seeds), settings=dict(self.settings),
                   **more)  # fmt: skip


def plan(
    tasks: Sequence[Task],
    methods: Sequence[str],
    protocol: Protocol,
    done: Records,
    samples: int = 0,
) -> list[Job]:
    """Return all jobs that the finished records determine, in order."""
    jobs: list[Job] = []
    for task in tasks:
        for name in methods:
            method = find_method(name)
            if method.learns:
                method_jobs = _learning(task, name, protocol, samples)
            else:
                method_jobs = _tuning(task, name, method, protocol, done, samples)
            jobs += method_jobs
            if method.kind == "agent":
                jobs += _controls(task, name, method_jobs, done)
    return jobs


def chosen_peak(
    task: Task, name: str, protocol: Protocol, done: Records
) -> tuple[float | None, list[float]]:
    """Return the tuned rate, `None` while runs are missing, and all rates to try."""
    method = find_method(name)
    base = protocol.base_rate(task, method)
    multiples = protocol.grid(name, method)
    for _ in range(protocol.widen + 1):
        rates = [base * multiple for multiple in multiples]
        losses = tuning_losses(task, name, rates, protocol, done)
        if losses is None:
            return None, rates
        best = int(np.argmin(losses))
        if 0 < best < len(rates) - 1 or len(rates) == 1:
            break
        if len(multiples) == len(protocol.grid(name, method)) + protocol.widen:
            break
        if best == 0:
            multiples = [multiples[0] ** 2 / multiples[1], *multiples]
        else:
            multiples = [*multiples, multiples[-1] ** 2 / multiples[-2]]
    return rates[best], rates


def tuning_losses(
    task: Task, name: str, rates: Sequence[float], protocol: Protocol, done: Records
) -> list[float] | None:
    """Return the mean final validation loss per rate; `None` where a run is missing."""
    method = find_method(name)
    by_rate: dict[float, list[float]] = {}
    for job in tune_jobs(task, name, method, rates, protocol):
        record = done.get(job.file_name)
        if record is None:
            return None
        for run in record["runs"]:
            loss = run["metrics"]["final_val_loss"]
            by_rate.setdefault(run["learning_rate"], []).append(loss)
    return [float(np.mean(by_rate[rate])) for rate in rates]


def tune_jobs(
    task: Task,
    name: str,
    method: Method,
    rates: Sequence[float],
    protocol: Protocol,
) -> list[Job]:
    """Return the jobs that try `rates`: one per seed, and one per added rate."""
    grid = [protocol.base_rate(task, method) * m for m in protocol.grid(name, method)]
    added = [rate for rate in rates if rate not in grid]
    seeds = protocol.seeds(method)
    jobs = [
        task.job(name, "tune", [seed] * len(grid), learning_rates=tuple(grid))
        for seed in seeds
    ]
    jobs += [
        task.job(name, "tune", seeds, learning_rates=(rate,) * len(seeds))
        for rate in added
    ]
    return jobs


def _tuning(
    task: Task,
    name: str,
    method: Method,
    protocol: Protocol,
    done: Records,
    samples: int,
) -> list[Job]:
    best, rates = chosen_peak(task, name, protocol, done)
    jobs = tune_jobs(task, name, method, rates, protocol)
    if best is not None:
        seeds = protocol.test_seeds
        same = (best,) * len(seeds)
        test = task.job(name, "test", seeds, learning_rates=same, samples=samples)
        jobs.append(test)
    return jobs


def _learning(task: Task, name: str, protocol: Protocol, samples: int) -> list[Job]:
    """Return one job per replicate, each with its share of the test seeds."""
    count = min(protocol.learners, len(protocol.test_seeds))
    return [
        task.job(
            name,
            "learn",
            protocol.test_seeds[replicate::count],
            replicate=replicate,
            budget=protocol.budget,
            samples=samples if replicate == 0 else 0,
        )
        for replicate in range(count)
    ]


def _controls(task: Task, name: str, jobs: Sequence[Job], done: Records) -> list[Job]:
    """Return the replays of the method's test runs, once these are done.

    ``open_loop`` follows the geometric mean of the learning rates over all test runs;
    ``shuffled`` takes every run's actions in another order.
    """
    tests = [job for job in jobs if job.phase in ("test", "learn")]
    records = [done.get(job.file_name) for job in tests]
    if not tests or any(record is None for record in records):
        return []
    runs = [run for record in records if record for run in record["runs"]]
    runs.sort(key=lambda run: run["seed"])
    curves = [run["curves"]["learning_rate"] for run in runs]
    longest = max(map(len, curves))
    whole = [np.log(curve) for curve in curves if len(curve) == longest]
    mean = tuple(np.exp(np.mean(whole, axis=0)).tolist())
    seeds = [run["seed"] for run in runs]
    controls = [task.job(name, "open_loop", seeds, script=(mean,) * len(runs))]
    actions = [run["curves"]["action"] for run in runs]
    if all(isinstance(action, int) for taken in actions for action in taken):
        script = tuple(
            tuple(np.random.default_rng(seed).permutation(taken).tolist())
            for seed, taken in zip(seeds, actions, strict=True)
        )
        rates = tuple(run["learning_rate"] for run in runs)
        controls.append(
            task.job(name, "shuffled", seeds, learning_rates=rates, script=script)
        )
    return controls
