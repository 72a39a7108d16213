"""From finished records to one row of numbers per method and control.

Losses are nats per character; lower is better. Methods are compared by the loss on the
test split at the end of training, on held-out seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import estimates
from benchmarks.comparison.jobs import env_name
from benchmarks.comparison.methods import find_method
from benchmarks.estimates import Estimate, Scores
from benchmarks.table_text import csv_text
from lr_gym.files import write_text

REFERENCES = ("linear", "constant")  # the first of them that takes part
PAPER_BASELINE = "cosine"
CONTROL_PHASES = ("open_loop", "shuffled")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        label: The method's name; a control adds its kind in brackets.
        kind: As of `Method`, or ``control``.
        tuned: Task to tuned initial rate; empty for a method that learns.
        budget: Trainings per task spent before testing.
        run_cost: Trainings per test run.
        runs: Test runs.
        test_loss: Task to interquartile mean of the test loss.
        difference: To the reference, seed by seed, pooled over tasks; `None` for it.
        improvement: Probability that a run beats one of the reference; `None` for it.
        p_value: Of the difference, adjusted for all comparisons made.
        call: ``better``, ``worse``, ``open``, or ``reference``.
        diverged: Share of runs.
        final_val_loss: Task to interquartile mean; so are the next two.
        best_val_loss: The lowest of a run.
        final_train_loss: The mean over a run's last chunk.
        steps_to_target: Task to the median iteration at which the reference's median
            final validation loss is reached; `None` where half the runs never do.
        versus_cosine: Difference to the paper's baseline, cosine, seed by seed; `None`
            for cosine, and without it.
    """

    label: str
    kind: str
    tuned: dict[str, float]
    budget: float
    run_cost: int
    runs: int
    test_loss: dict[str, float]
    difference: Estimate | None
    improvement: Estimate | None
    p_value: float | None
    call: str
    diverged: float
    final_val_loss: dict[str, float]
    best_val_loss: dict[str, float]
    final_train_loss: dict[str, float]
    steps_to_target: dict[str, int | None]
    versus_cosine: Estimate | None = None


def label_of(job: Mapping[str, Any]) -> str:
    """Return the label of a job's runs."""
    name = str(job["method"])
    return f"{name} ({job['phase']})" if job["phase"] in CONTROL_PHASES else name


def task_of(job: Mapping[str, Any]) -> str:
    """Return the task's name: corpus, scale, and the architecture if not GPT."""
    settings = job["settings"]
    name = f"{env_name(job['env'])} {settings['scale']}"
    architecture = settings.get("architecture", "gpt")
    return name if architecture == "gpt" else f"{name} {architecture}"


Runs = dict[str, dict[str, list[dict[str, Any]]]]


def tested_runs(records: Iterable[Mapping[str, Any]]) -> Runs:
    """Return label -> task -> runs on test seeds, in the order of their seeds."""
    by_label: Runs = {}
    for record in records:
        job = record["job"]
        if job["phase"] != "tune":
            tasks = by_label.setdefault(label_of(job), {})
            tasks.setdefault(task_of(job), []).extend(record["runs"])
    for tasks in by_label.values():
        for runs in tasks.values():
            runs.sort(key=lambda run: int(run["seed"]))
    return by_label


def scores(tasks: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> Scores:
    """Return `metric` of every run, by task."""
    return {
        task: np.array([float(run["metrics"][metric]) for run in runs])
        for task, runs in tasks.items()
    }


def reference_of(labels: Iterable[str]) -> str:
    """Return the label that all others are compared with."""
    labels = list(labels)
    return next((name for name in REFERENCES if name in labels), labels[0])


def summarize(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return one row per method and control, the lowest difference first."""
    runs = tested_runs(records)
    reference = reference_of(runs)
    losses = {label: scores(tasks, "test_loss") for label, tasks in runs.items()}
    paired = {
        label: estimates.differences(by_task, losses[reference])
        for label, by_task in losses.items()
        if label != reference
    }
    adjusted = estimates.adjusted(
        {label: estimates.paired_p(pairs) for label, pairs in paired.items()}
    )
    targets = {
        task: float(np.median(values))
        for task, values in scores(runs[reference], "final_val_loss").items()
    }
    cosine = losses.get(PAPER_BASELINE)
    rows = []
    for label, tasks in runs.items():
        difference = gain = p_value = versus_cosine = None
        call = "reference"
        if label in paired:
            difference = estimates.pooled_iqm(paired[label])
            gain = estimates.improvement(losses[label], losses[reference])
            p_value = adjusted[label]
            call = estimates.call(difference, p_value)
        if cosine is not None and label != PAPER_BASELINE:
            pairs = estimates.differences(losses[label], cosine)
            versus_cosine = estimates.pooled_iqm(pairs)
        all_runs = [run for task_runs in tasks.values() for run in task_runs]
        rows.append(
            Row(
                label=label,
                **_spending(label, records),
                runs=len(all_runs),
                difference=difference,
                improvement=gain,
                p_value=p_value,
                call=call,
                diverged=float(np.mean([r["metrics"]["diverged"] for r in all_runs])),
                steps_to_target={
                    task: steps_to(task_runs, targets[task])
                    for task, task_runs in tasks.items()
                },
                test_loss=_by_task(tasks, "test_loss"),
                final_val_loss=_by_task(tasks, "final_val_loss"),
                best_val_loss=_by_task(tasks, "best_val_loss"),
                final_train_loss=_by_task(tasks, "final_train_loss"),
                versus_cosine=versus_cosine,
            )
        )
    return sorted(rows, key=lambda row: row.difference.value if row.difference else 0.0)


def _by_task(
    tasks: Mapping[str, Sequence[Mapping[str, Any]]], metric: str
) -> dict[str, float]:
    by_task = scores(tasks, metric).items()
    return {task: float(estimates.iqm(values)) for task, values in by_task}


def _spending(label: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return kind, tuned rates and trainings spent of a method or control."""
    method_records = [r for r in records if label_of(r["job"]) == label]
    method = find_method(method_records[0]["job"]["method"])
    control = method_records[0]["job"]["phase"] in CONTROL_PHASES
    tuned: dict[str, float] = {}
    budgets: dict[str, int] = {}
    for record in method_records:
        task = task_of(record["job"])
        if record["job"]["phase"] == "tune":
            budgets[task] = budgets.get(task, 0) + record["trainings"]
        elif record["job"]["phase"] == "learn":
            budgets[task] = max(budgets.get(task, 0), record["spent_learning"])
        elif record["job"]["phase"] == "test":
            tuned[task] = float(record["runs"][0]["learning_rate"])
    return {
        "kind": "control" if control else method.kind,
        "tuned": tuned,
        "budget": float(np.mean(list(budgets.values()))) if budgets else 0.0,
        "run_cost": 1 if control else method.cost,
    }


def steps_to(runs: Sequence[Mapping[str, Any]], target: float) -> int | None:
    """Return the median over runs of the iteration that first reaches `target`."""
    reached = []
    for run in runs:
        steps = zip(run["curves"]["iteration"], run["curves"]["val_loss"], strict=True)
        reached.append(next((i for i, loss in steps if loss <= target), np.inf))
    median = sorted(reached)[(len(reached) - 1) // 2]  # an iteration of some run
    return int(median) if np.isfinite(median) else None


def timings(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return seconds per run and generated characters per second, by label and task."""
    lines = []
    for label, tasks in tested_runs(records).items():
        for task, runs in tasks.items():
            speeds = [r["metrics"].get("inference_tokens_per_second") for r in runs]
            measured = [speed for speed in speeds if speed is not None]
            seconds = [run["metrics"]["train_seconds"] for run in runs]
            lines.append(
                {
                    "label": label,
                    "task": task,
                    "train_seconds": float(np.median(seconds)),
                    "inference_tokens_per_second": measured[0] if measured else None,
                }
            )
    return lines


def run_lines(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of every test run: the data of all statistics."""
    names = (
        "test_loss",
        "final_val_loss",
        "best_val_loss",
        "final_train_loss",
        "diverged",
    )
    return [
        {
            "label": label,
            "task": task,
            "seed": run["seed"],
            **{name: run["metrics"][name] for name in names},
        }
        for label, tasks in tested_runs(records).items()
        for task, runs in tasks.items()
        for run in runs
    ]


def write_summary(folder: Path, records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Write summary.json, summary.csv, runs.csv (all without times), timings.csv."""
    rows = summarize(records)
    content = json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False)
    write_text(folder / "summary.json", content + "\n")
    write_text(folder / "summary.csv", csv_text([_flat(row) for row in rows]))
    write_text(folder / "runs.csv", csv_text(run_lines(records)))
    write_text(folder / "timings.csv", csv_text(timings(records)))
    return rows


def load_rows(path: Path) -> list[Row]:
    """Read the rows of a summary.json."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        for name in ("difference", "improvement", "versus_cosine"):
            estimate = row.get(name)  # older files lack versus_cosine
            row[name] = None if estimate is None else Estimate(**estimate)
    return [Row(**row) for row in rows]


def _flat(row: Row) -> dict[str, Any]:
    """Return a row as one level of columns: ``difference_low``, ``test_loss: ...``."""
    flat: dict[str, Any] = {}
    for name, value in vars(row).items():
        if isinstance(value, Estimate):
            flat[name] = value.value
            flat[f"{name}_low"], flat[f"{name}_high"] = value.low, value.high
        elif isinstance(value, dict):
            flat |= {f"{name}: {task}": inner for task, inner in value.items()}
        else:
            flat[name] = value
    return flat


def methods_of(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are methods: neither controls nor the placebo."""
    return [row for row in rows if row.kind not in ("control", "placebo")]
