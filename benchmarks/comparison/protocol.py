"""Who runs what, in which order, and what may be chosen from what.

A method whose rate is its only setting spends its budget on tuning: every peak on every
tuning seed. The peak with the lowest mean final validation loss is tested; one at the
edge of the grid widens the grid first. A method that learns spends as many trainings on
learning, from the task's own initial rate, once per replicate; each replicate is
tested on its share of the test seeds. Seeds of tuning, of learning and of testing
differ. Nothing is chosen by a test seed or by the test split.

`plan` is a pure function of what is finished. So an interrupted comparison goes on
where it was, whoever runs the jobs.
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
    """How much is spent on what; the numbers are trainings, peaks and seeds.

    Attributes:
        peaks: Multiples of the task's own initial rate that are tried.
        tune_seeds: Training runs per peak.
        test_seeds: Training runs per reported figure.
        learners: Replicates of a method that learns.
        widen: Most peaks added where the best is at an edge.
        centers: Method to multiple: the grid's middle, where it is not 1.
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
        while len(peaks) > affordable:  # a costly method leaves out the outer ones
            peaks.pop(0 if len(peaks) % 2 == 0 else -1)
        return [peak * self.centers.get(name, 1.0) for peak in peaks]

    def seeds(self, method: Method) -> tuple[int, ...]:
        """Return the tuning seeds that `method` can afford."""
        return self.tune_seeds[: max(1, len(self.tune_seeds) // method.cost)]

    @staticmethod
    def base_rate(task: Task, method: Method) -> float:
        """Return the rate whose multiples are tried: the task's, or an optimizer's."""
        if method.optimizer is not None and method.optimizer.learning_rate is not None:
            return method.optimizer.learning_rate
        return task_learning_rate(task.job("", "", ()))


@dataclass(frozen=True)
class Task:
    """A corpus and everything else that all methods share."""

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
    """Return all jobs known so far, finished ones among them, in order."""
    jobs: list[Job] = []
    for task in tasks:
        for name in methods:
            method = find_method(name)
            if method.learns:
                found = _learning(task, name, protocol, samples)
            else:
                found = _tuning(task, name, method, protocol, done, samples)
            jobs += found
            if method.kind == "agent":
                jobs += _controls(task, name, found, done)
    return jobs


def chosen_peak(
    task: Task, name: str, protocol: Protocol, done: Records
) -> tuple[float | None, list[float]]:
    """Return the tuned rate, `None` while that is open, and all rates to try."""
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
    found: dict[float, list[float]] = {}
    for job in tune_jobs(task, name, method, rates, protocol):
        record = done.get(job.file_name)
        if record is None:
            return None
        for run in record["runs"]:
            loss = run["metrics"]["final_val_loss"]
            found.setdefault(run["learning_rate"], []).append(loss)
    return [float(np.mean(found[rate])) for rate in rates]


def tune_jobs(
    task: Task,
    name: str,
    method: Method,
    rates: Sequence[float],
    protocol: Protocol,
) -> list[Job]:
    """Return the jobs that try `rates`: per seed one for the grid, one per addition."""
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
    """Return the replays of what the method did in its test runs, once they are done.

    ``open_loop`` follows, in every run, the geometric mean of the learning rates over
    all test runs; ``shuffled`` takes each run's own actions in another order.
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
