"""The controller in a user's world, beside its rivals and tuned schedules.

    python -m benchmarks.controller.users.compare                   # tasks to choose by
    python -m benchmarks.controller.users.compare --tasks judged    # only at the end

Every task runs with constant, cosine and WSD at 8 peaks, and with every rival from
learning rates that are 1/30, 1 and 30 times its middle one. Excess is log(final loss /
best mean of the 24 tuned runs), a difference where losses can be below zero. Finished
runs stay in the result file; the same command continues. Runs that other code made run
again. Needs scikit-learn and peft.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from agents.command_line import one_line_errors, parse_command_line
from benchmarks.controller.users import loop
from benchmarks.controller.users.controlled import Controlled
from benchmarks.controller.users.pilots import RIVALS, TUNED, MakePilot
from benchmarks.controller.users.tasks import CHOOSING, JUDGED, UserTask
from benchmarks.dependencies import Sources
from benchmarks.estimates import improvement, pooled_iqm
from benchmarks.results_file import write_json, write_result
from benchmarks.table_text import estimate_text, markdown
from lr_gym.files import only_process, read_json_object
from lr_gym.progress import ProgressBar

PEAKS = tuple(2.0**power for power in range(-4, 4))  # of the task's middle rate
STARTS = (1 / 30, 1.0, 30.0)
TASKS = {"choosing": CHOOSING, "judged": JUDGED}
FOLDER = "benchmarks.controller.users"
CONTROLLER = "controller"
METHODS: dict[str, MakePilot] = {**TUNED, **RIVALS, CONTROLLER: Controlled}
WORST = 20.0  # excess of a run that diverged


@dataclass
class Args:
    """Train every task with tuned schedules and with every rival."""

    tasks: Literal["choosing", "judged"] = "choosing"
    """Which half of the tasks."""
    only: tuple[str, ...] = ()
    """Tasks to run; all by default."""
    methods: tuple[str, ...] = ()
    """Schedules and rivals to run; all by default."""
    seeds: int = 5
    """Runs of each case."""
    workers: int = os.cpu_count() or 1
    """Processes, each with one thread."""
    out: Path = Path("benchmarks/results/controller/users")
    """Folder of the result files, one per half."""


@dataclass(frozen=True)
class Case:
    """A run: its task, method, share of the middle learning rate, and seed."""

    task: str
    method: str
    share: float
    seed: int

    @property
    def key(self) -> str:
        """The name of the run in the result file."""
        return f"{self.task} {self.method} {self.share:.4g} {self.seed}"


def plan(args: Args) -> list[Case]:
    """Return all runs of the command line.

    Raises:
        SystemExit: A task or method is not known.
    """
    tasks = args.only or tuple(TASKS[args.tasks])
    methods = args.methods or tuple(METHODS)
    for names, known in ((tasks, TASKS[args.tasks]), (methods, METHODS)):
        unknown = set(names) - set(known)
        if unknown:
            raise SystemExit(f"error: unknown {sorted(unknown)}; known: {[*known]}")
    return [
        Case(task, method, share, seed)
        for task in tasks
        for method in methods
        for share in (PEAKS if method in TUNED else STARTS)
        for seed in range(args.seeds)
    ]


def codes() -> dict[str, str]:
    """Return a hash of the code that the controller's runs depend on, and the others'.

    Schedules and rivals use nothing of lr_gym but the place of the texts, so their
    runs stay when it changes.
    """
    sources = Sources()
    return {
        "others": sources.code_hash(f"{FOLDER}.loop", within=FOLDER),
        CONTROLLER: sources.code_hash(f"{FOLDER}.loop", f"{FOLDER}.controlled"),
    }


def finished(path: Path, code: dict[str, str]) -> dict[str, float | None]:
    """Return the runs of a result file that today's code would repeat."""
    content = read_json_object(path)
    old = {kind for kind in code if content["code"].get(kind) != code[kind]}
    if old:
        print(f"{path}: other code made the runs of {sorted(old)}; they run again")
    losses: dict[str, float | None] = content["final_loss"]
    return {
        key: loss
        for key, loss in losses.items()
        if (CONTROLLER if f" {CONTROLLER} " in key else "others") not in old
    }


def final_loss(half: str, case: Case) -> float | None:
    """Run a case; return its final validation loss.

    It is inf if the run diverges, and `None` if the rival cannot apply.
    """
    loop.one_thread()
    task: UserTask = TASKS[half][case.task]
    make = METHODS[case.method]
    try:
        return loop.run(task, case.seed, make, case.share * task.middle_lr).loss
    except NotImplementedError:
        return None


def summarize(half: str, losses: dict[str, float | None]) -> dict[str, Any]:
    """Return the best tuned loss of every task, and the excess of every run.

    Tasks without tuned runs are left out.
    """
    by_case: dict[tuple[str, str, str], list[float | None]] = {}
    for key, loss in losses.items():
        name, rest = key.split(" ", 1)
        method, share, _ = rest.rsplit(" ", 2)
        by_case.setdefault((name, method, share), []).append(loss)
    best: dict[str, tuple[float, str]] = {}
    for (name, method, share), found in by_case.items():
        if method in TUNED and None not in found:
            mean = fmean(loss for loss in found if loss is not None)
            found_here = mean, f"{method} x{share}"
            best[name] = min(best.get(name, found_here), found_here)
    excess: dict[str, dict[str, list[float]]] = {}
    for (name, method, share), found in by_case.items():
        if name in best and method not in TUNED and None not in found:
            task, reference = TASKS[half][name], best[name][0]
            excess.setdefault(row_name(method, float(share)), {})[name] = [
                min(WORST, task.excess(loss, reference))
                for loss in found
                if loss is not None
            ]
    return {"best": best, "excess": excess}


def row_name(method: str, share: float) -> str:
    """Return the name of a method's row with the share that it starts from."""
    start = f"{share:.4g}" if share >= 1.0 else f"1/{1.0 / share:.0f}"
    return f"{method} from x{start}"


def table(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row per rival and start: interquartile mean, worst task, dead runs."""
    rows = []
    excess = {
        name: {task: np.array(values) for task, values in by_task.items()}
        for name, by_task in summary["excess"].items()
    }
    for name, by_task in excess.items():
        estimate = pooled_iqm(by_task)
        ours = excess.get(f"{CONTROLLER} from {name.rsplit(' ', 1)[1]}", {})
        beats = ""
        if ours and not name.startswith(CONTROLLER):
            beats = estimate_text(improvement(ours, by_task), ".2f")
        means = {task: fmean(values) for task, values in by_task.items()}
        worst = max(means, key=lambda task: means[task])
        dead = sum(value >= 1.0 for values in by_task.values() for value in values)
        rows.append(
            {
                "method": name,
                "tasks": str(len(by_task)),
                "interquartile mean": f"{estimate.value:+.3f}",
                "worst task": f"{means[worst]:+.3f} ({worst})",
                "runs with 1 or more": str(dead),
                "P(controller beats it)": beats,
            }
        )
    return rows


def main(args: Args) -> dict[str, Any]:
    """Run unfinished runs; print and write the result."""
    args.out.mkdir(parents=True, exist_ok=True)
    with one_line_errors(), only_process(args.out / f".{args.tasks}.running"):
        return run_and_write(args)


def run_and_write(args: Args) -> dict[str, Any]:
    """Do what `main` does, while no other process writes the file."""
    path, code = args.out / f"{args.tasks}.json", codes()
    losses = finished(path, code) if path.exists() else {}
    missing = [case for case in plan(args) if case.key not in losses]
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = {pool.submit(final_loss, args.tasks, case): case for case in missing}
        bar = ProgressBar(iterable=as_completed(jobs), total=len(jobs))
        for count, job in enumerate(bar):
            losses[jobs[job].key] = job.result()
            if count % 20 == 0:
                write_json(path, {"code": code, "final_loss": losses})
    summary = summarize(args.tasks, losses)
    result = write_result(path, {"code": code, "final_loss": losses, **summary})
    print(markdown(table(summary)))
    return result


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
