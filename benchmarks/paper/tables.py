"""The paper's Tables 1 and 2 and Figures 1 to 3: our results and the printed ones.

    python -m benchmarks.paper.tables                   # scale mini: a CPU's evening
    python -m benchmarks.paper.tables --scale paper     # the paper's size: a GPU
    python -m benchmarks.paper.tables --env markov --scale tiny

Each of the paper's agents runs twice. With real control the optimizer uses the agent's
rate. As published, the agent's rate is never used, and the optimizer follows the cosine
schedule: the run must equal the cosine baseline number for number, or the script ends
with an error. Finished jobs are kept: the same command continues an interrupted run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agents.command_line import parse_command_line
from benchmarks.comparison.fixed_plan import (
    check_counts,
    make_tasks,
    one_line_job_errors,
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

TABLE_1_SHARE = 0.5  # of the rate of Table 2, the preset's: 1e-3 of 2e-3
LINE_SETTINGS = ("base_schedule", "reward")


@dataclass
class Args:
    """Reproduce the paper's tables and figures."""

    env: tuple[str, ...] = ("shakespeare", "enwik8", "text8")
    """Corpora; absent ones are listed as missing."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "mini"
    """Size of the model and length of a run; auto is paper on CUDA, else mini."""
    seeds: int = 3
    """Training runs per line and corpus."""
    real_schedule: Literal["constant", "cosine"] = "constant"
    """Base schedule under real control; with constant, as the paper describes it, only
    the agent changes the rate after warm-up."""
    settings: str = "{}"
    """Further keywords of gym.make for every run, as JSON."""
    samples: int = 3
    """Texts of 500 characters generated per line, to time inference; the paper: 10."""
    workers: int | None = None
    """Processes; default: one per core, or a single one with a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to run on; local starts one here."""
    gpus: float = 0.0
    """With --ray: share of a GPU that a job needs."""
    fresh: bool = False
    """Run jobs again that were made by other code; old files move to the folder old."""
    out: Path | None = None
    """Output folder; default results/paper/SCALE."""


def find_tasks(args: Args) -> tuple[list[Task], dict[str, str]]:
    """Return a task per corpus, and the reasons why corpora are missing.

    Raises:
        ValueError: An argument is wrong; the message names it.
        FileNotFoundError: All corpora are missing.
    """
    tasks, missing = [], {}
    methods = tuple(dict.fromkeys(line.method for line in LINES))
    for env in args.env:
        try:
            tasks += make_tasks(args, (env,), methods)
        except FileNotFoundError as error:
            missing[env] = str(error)
        except ValueError as error:
            # A partial download does not stop the other corpora.
            if env not in PUBLISHED or "is not the published text" not in str(error):
                raise
            missing[env] = (
                f"only a part of {env} is present; LR_GYM_ALLOW_PARTIAL=1 runs on it"
            )
    if not tasks:
        raise FileNotFoundError(f"no corpus found: {'; '.join(missing.values())}")
    for name in LINE_SETTINGS:
        if name in tasks[0].settings:
            raise ValueError(f"--settings must not hold {name}: each line has its own")
    return tasks, missing


def line_job(line: Line, task: Task, args: Args) -> Job:
    """Return the job of one line on one corpus, with all its seeds."""
    preset_rate = task_learning_rate(task.job("", "", ()))
    lower_rate = TABLE_1_SHARE * preset_rate
    line_settings: dict[str, Any] = {}
    if line.reward is not None:
        # In the paper's code the minimum of the agent's rate is that of the cosine
        # schedule of Table 1.
        line_settings = {"reward": line.reward, "min_lr": COSINE_FLOOR * lower_rate}
    if line.kind == "real":
        line_settings["base_schedule"] = args.real_schedule
    seeds = tuple(range(args.seeds))
    rate = lower_rate if line.table == 1 else preset_rate
    return Job(
        line.method,
        task.env,
        "test",
        seeds,
        learning_rates=(rate,) * len(seeds),
        settings={**line_settings, **task.settings},
        samples=args.samples,
    )


def check(args: Args) -> None:
    """Raise ValueError if an argument is out of range."""
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
    """Run missing jobs; write tables and figures; return their folder."""
    with one_line_job_errors():
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
    main(parse_command_line(Args, __doc__))
