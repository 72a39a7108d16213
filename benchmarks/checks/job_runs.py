"""Runs of results that are lists of jobs: comparisons, held-out lists, controller."""

from __future__ import annotations

import csv
import json
import math
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checks.runs import Run
from benchmarks.comparison import entry
from benchmarks.comparison.executors import SerialExecutor, one_thread, run_all
from benchmarks.comparison.jobs import Job, run_job
from benchmarks.comparison.protocol import Task, plan
from benchmarks.comparison.summary import tested_runs
from benchmarks.controller import instance_jobs, rule_choice, widths, wrong_rates
from benchmarks.controller.rate_jobs import FIRST_SEED, rate_job
from benchmarks.paper import tables
from benchmarks.paper.values import LINES
from lr_gym.controllers import UpdateSizeRule
from lr_gym.controllers.policies.policy_file import save_policy

TUPLES = ("seeds", "learning_rates")


def records(archive: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of an archive of jobs."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                yield json.load(file)


def archived(archive: Path, scale: str) -> list[Run]:
    """Return the jobs of an archive that ran at `scale`."""
    runs = []
    for record in records(archive):
        fields = record["job"]
        if fields["settings"]["scale"] != scale:
            continue
        lists = {name: tuple(fields[name]) for name in TUPLES}
        script = tuple(map(tuple, fields["script"]))
        job = Job(**{**fields, **lists, "script": script, "samples": 0})
        losses = [run["metrics"]["final_val_loss"] for run in record["runs"]]
        seconds = record["seconds"]
        runs.append(Run(job.file_name, losses, partial(_losses, job), seconds))
    return runs


def _losses(job: Job) -> list[float]:
    """Run a job; return the final validation losses of its runs."""
    with one_thread():
        record = run_job(job)
    return [run["metrics"]["final_val_loss"] for run in record["runs"]]


def _flat(losses: Any) -> list[float]:  # noqa: ANN401 - nested lists of a JSON file
    return [float(loss) for loss in np.ravel(losses)]


def quick(folder: Path) -> list[Run]:
    """Return the methods of the quick comparison: each is tuned and tested again."""
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    losses: dict[str, list[float]] = {}
    for row in rows:
        losses.setdefault(row["label"], []).append(float(row["test_loss"]))
    return [
        Run(name, losses[name], partial(_tested, name)) for name in entry.QUICK_AGENTS
    ]


def _tested(name: str) -> list[float]:
    """Tune or train a method as in the quick comparison; return its test losses."""
    task = Task("markov", {"scale": "tiny"})
    jobs = partial(plan, [task], [name], entry.QUICK)
    with tempfile.TemporaryDirectory() as folder:
        done = run_all(jobs, Path(folder), SerialExecutor())
    (runs,) = tested_runs(done.values())[name].values()
    return [run["metrics"]["test_loss"] for run in runs]


def _by_rate(
    name: str, job: Job, losses: Sequence[Sequence[float]], seconds: float
) -> list[Run]:
    """Return the runs of a `rate_job` per learning rate, in populations of their own.

    A smaller population can round differently.
    """
    seeds = len(losses[0])
    runs = []
    for number, of_rate in enumerate(losses):
        part = slice(number * seeds, (number + 1) * seeds)
        rates = job.learning_rates[part]
        smaller = replace(job, seeds=job.seeds[part], learning_rates=rates)
        again = partial(_losses, smaller)
        share = seconds / len(losses)
        runs.append(Run(f"{name} from {rates[0]:g}", of_rate, again, share))
    return runs


def wrong_rate_runs(path: Path, *, env: str, settings: str) -> list[Run]:
    """Return the runs of `wrong_rates.py` on a corpus, with further `settings`."""
    result = json.loads(path.read_text(encoding="utf-8"))
    losses = result["final_val_loss"]
    args = wrong_rates.Args(methods=tuple(losses), env=env, settings=settings)
    return [
        run
        for job in wrong_rates.make_jobs(args)
        for run in _by_rate(
            job.method, job, losses[job.method], result["seconds"][job.method]
        )
    ]


def width_runs(path: Path, peaks: Sequence[float] = widths.Args().peaks) -> list[Run]:
    """Return the runs of `widths.py`: of the schedule and the controller, per width."""
    result = json.loads(path.read_text(encoding="utf-8"))
    args = widths.Args(
        widths=tuple(width["width"] for width in result["widths"]),
        peaks=tuple(peaks),
        jobs=Path(tempfile.mkdtemp()),
    )
    published = [
        (f"{width['width']} {name}", losses, width["seconds"] / 2)
        for width in result["widths"]
        for name, losses in (
            (widths.SCHEDULE, width["final_val_loss"]),
            ("controller", width["controllers"][0]["final_val_loss"]),
        )
    ]
    return [
        run
        for (name, losses, seconds), job in zip(
            published, widths.make_jobs(args), strict=True
        )
        for run in _by_rate(name, job, losses, seconds)
    ]


def rule_choice_runs(path: Path) -> list[Run]:
    """Return the jobs of `rule_choice.py`: the schedule and variants, per task."""
    result = json.loads(path.read_text(encoding="utf-8"))
    cells = instance_jobs.make_cells(rule_choice.TASKS, rule_choice.SCALE, {})
    seeds = range(FIRST_SEED, FIRST_SEED + len(result["seeds"]))
    folder = Path(tempfile.mkdtemp())
    runs = []
    for number, cell in enumerate(cells):
        job = rate_job(cell.task, rule_choice.SCHEDULE, result["peaks"], seeds)
        losses = _flat(result[rule_choice.SCHEDULE][number])
        runs.append(Run(f"{number} schedule", losses, partial(_losses, job)))
        for fields in result["variants"]:
            variant = rule_choice.Variant(fields["weights"], fields["most_rise"])
            rule = folder / f"{variant.most_rise:g}.safetensors"
            save_policy(UpdateSizeRule(most_rise=variant.most_rise), rule)
            job = rate_job(cell.task, str(rule), result["starts"], seeds)
            again = partial(_with_weight_term, variant.weights, job)
            losses = _flat(fields["final_val_loss"][number])
            runs.append(Run(f"{number} {variant.name}", losses, again))
    return runs


def _with_weight_term(weights: float, job: Job) -> list[float]:
    with rule_choice.weight_term(weights):
        return _losses(job)


def paper_runs(folder: Path) -> list[Run]:
    """Return the lines of the paper's tables; a number is the mean over seeds."""
    with (folder / "tables.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    envs = {"shakespeare_char": "shakespeare", "text8": "text8"}
    args = tables.Args(env=tuple(envs.values()), samples=1)
    tasks = {env: Task(env, {"scale": args.scale}) for env in args.env}
    lines = {(line.table, line.label, line.method): line for line in LINES}
    runs = []
    for row in rows:
        line = lines[int(row["table"]), row["line"], row["method"]]
        job = tables.line_job(line, tasks[envs[row["dataset"]]], args)
        runs.append(
            Run(
                f"{row['dataset']} {line.key}",
                [float(row["final_val_loss"])],
                partial(_mean_loss, job),
                int(row["runs"]) * float(row["train_seconds"]),
            )
        )
    return runs


def _mean_loss(job: Job) -> list[float]:
    return [math.fsum(losses := _losses(job)) / len(losses)]
