"""The paper's Tables 1 and 2 and Figures 1 to 3, ours beside what it printed.

    python -m benchmarks.paper.tables                   # scale mini: a CPU's evening
    python -m benchmarks.paper.tables --scale paper     # the paper's size: a GPU
    python -m benchmarks.paper.tables --env markov --scale tiny

Each of the paper's agents runs twice: with real control, where its action sets the rate
that the optimizer uses, and as published, where its rate trains nothing and the cosine
schedule decides. The second must equal the cosine baseline number for number; where it
does not, this ends with an error. Finished jobs are kept, so the same command goes on
where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.comparison.fixed_plan import (
    check_counts,
    make_tasks,
    one_line_errors,
    run_plan,
)
from benchmarks.comparison.jobs import Job, task_learning_rate
from benchmarks.comparison.protocol import Task
from benchmarks.paper import figures, report
from benchmarks.paper.results import Results, published_faults
from benchmarks.paper.values import LINES, Line
from benchmarks.table_text import csv_text
from lr_gym.data.downloads import PUBLISHED
from lr_gym.files import write_text
from lr_gym.schedules import COSINE_FLOOR

TABLE_1_SHARE = 0.5  # of the preset's rate, at which Table 2 was run: 1e-3 of 2e-3
SET_HERE = ("base_schedule", "reward")


@dataclass
class Args:
    """Reproduce the paper's tables and figures."""

    env: tuple[str, ...] = ("shakespeare", "enwik8", "text8")
    """Corpora; those that are not to be had are listed as missing."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "mini"
    """Size of the model and length of a run; auto is paper on CUDA, else mini."""
    seeds: int = 3
    """Training runs per line and corpus."""
    real_schedule: Literal["constant", "cosine"] = "constant"
    """Under real control, what the agent's rate is multiplied by: constant, as the
    paper describes it, leaves the rate to the agent after warm-up."""
    settings: str = "{}"
    """Further keywords of gym.make for every run, as JSON."""
    samples: int = 3
    """Texts of 500 characters generated per line, to time inference; the paper: 10."""
    workers: int | None = None
    """Processes; default: one per core, one in all with a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to run on; local starts one here."""
    gpus: float = 0.0
    """With --ray: share of a GPU that a job needs."""
    out: Path | None = None
    """Output folder; default results/paper/SCALE."""


def find_tasks(args: Args) -> tuple[list[Task], dict[str, str]]:
    """Return a task per corpus that is there, and why the others are missing.

    Raises:
        ValueError: An argument is wrong; the message names it.
        FileNotFoundError: No corpus is there.
    """
    tasks, missing = [], {}
    methods = tuple(dict.fromkeys(line.method for line in LINES))
    for env in args.env:
        try:
            tasks += make_tasks(args, (env,), methods)
        except FileNotFoundError as error:
            missing[env] = str(error)
        except ValueError as error:
            # Half a download is no reason to do without the other corpora.
            if env not in PUBLISHED or "is not the published text" not in str(error):
                raise
            missing[env] = (
                f"only a part of {env} is there; LR_GYM_ALLOW_PARTIAL=1 runs on it"
            )
    if not tasks:
        raise FileNotFoundError(f"no corpus is there: {'; '.join(missing.values())}")
    for name in SET_HERE:
        if name in tasks[0].settings:
            raise ValueError(f"--settings must not hold {name}: each line has its own")
    return tasks, missing


def line_job(line: Line, task: Task, args: Args) -> Job:
    """Return the job of one line on one corpus: all its seeds, side by side."""
    preset_rate = task_learning_rate(task.job("", "", ()))
    lower_rate = TABLE_1_SHARE * preset_rate
    own: dict[str, Any] = {}
    if line.reward is not None:
        # In its code the agent's rate never falls below a fixed floor, that of the
        # cosine schedule of Table 1.
        own = {"reward": line.reward, "min_lr": COSINE_FLOOR * lower_rate}
    if line.kind == "real":
        own["base_schedule"] = args.real_schedule
    seeds = tuple(range(args.seeds))
    rate = lower_rate if line.table == 1 else preset_rate
    return Job(
        line.method,
        task.env,
        "test",
        seeds,
        learning_rates=(rate,) * len(seeds),
        settings={**own, **task.settings},
        samples=args.samples,
    )


def check(args: Args) -> None:
    """Raise ValueError where an argument is out of range."""
    check_counts(args, "seeds", "samples", "workers")
    if not args.env or len(set(args.env)) < len(args.env):
        raise ValueError(f"--env must name each once, got {args.env}")


def write_report(folder: Path, results: Results) -> None:
    """Write tables.md, tables.csv and the figures."""
    for number, env in enumerate(results.envs, 1):
        if env in results.runs:
            picture = figures.draw(results, env)
            write_text(folder / f"figure-{number}.svg", picture)
    write_text(folder / "tables.md", report.markdown_report(results))
    write_text(folder / "tables.csv", csv_text(report.csv_rows(results)))


def main(args: Args) -> Path:
    """Run what is missing; write tables and figures; return their folder."""
    with one_line_errors():
        check(args)
        tasks, missing = find_tasks(args)
        scale = str(tasks[0].settings["scale"])
        folder = args.out or Path(f"results/paper/{scale}")
        jobs = {
            task.env: {line: line_job(line, task, args) for line in LINES}
            for task in tasks
        }
        plan = [job for of_lines in jobs.values() for job in of_lines.values()]
        done = run_plan(plan, folder / "jobs", args)
    results = Results(
        envs=args.env,
        scale=scale,
        real_schedule=args.real_schedule,
        records={
            env: {line: done[job.file_name] for line, job in of_lines.items()}
            for env, of_lines in jobs.items()
        },
        missing=missing,
    )
    write_report(folder, results)
    print(report.markdown_report(results))
    print(f"report: {folder / 'tables.md'}")
    if published_faults(results):
        raise SystemExit("error: as published, the agent changed the training")
    return folder


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
