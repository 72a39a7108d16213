"""Final losses of runs with a wrong initial learning rate, by method.

    python -m benchmarks.controller.wrong_rates --env shakespeare --scale tiny

Each method starts from a good learning rate times 1/30 to 30. Nothing is tuned. The
runs and seeds differ from those of the held-out lists (`tuning_free.py`), so a rule may
be developed on them.
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
from benchmarks.comparison.jobs import Job
from benchmarks.comparison.protocol import Task
from benchmarks.controller.rate_jobs import (
    FIRST_SEED,
    RunOptions,
    final_losses,
    rate_job,
)
from benchmarks.provenance import provenance
from benchmarks.results_file import changing, read_results, write_json
from benchmarks.table_text import markdown
from lr_gym.mdp.instances import HELD_OUT_LR_FACTORS


@dataclass
class Args(RunOptions):
    """Run every method from wrong learning rates."""

    env: str = "shakespeare"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """Size of the model and length of a run."""
    methods: tuple[str, ...] = (
        "wsd",
        "reactive",
        "ramp_and_undo_near",
        "ramp_and_undo",
        "update_size",
    )
    """Names that compare_agents.py --agents takes."""
    good_lr: float = 8e-3
    """A learning rate near the best one."""
    factors: tuple[float, ...] = HELD_OUT_LR_FACTORS
    """Initial learning rates, as multiples of --good-lr."""
    seeds: int = 3
    """Runs per learning rate."""
    jobs: Path = Path("results/wrong_rates")
    """Folder of finished jobs, which are not run again."""
    out: Path = Path("benchmarks/results/controller/wrong_rates.json")
    """The result file. Other methods' results on the same runs stay in it."""


def make_jobs(args: Args) -> list[Job]:
    """Return one job per method, with all learning rates and seeds."""
    (task,) = make_tasks(args, [args.env], args.methods)
    rates = [args.good_lr * factor for factor in args.factors]
    bounds = {"max_lr": max(1.0, *rates), "min_lr": min(1e-9, *rates)}
    task = Task(args.env, {**task.settings, **bounds})
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    return [rate_job(task, name, rates, seeds) for name in args.methods]


def main(args: Args) -> None:
    """Run unfinished jobs, print the table, write the result."""
    with one_line_job_errors():
        check_counts(args, "seeds", "workers")
        jobs = make_jobs(args)
        done = run_plan(jobs, args.jobs, args)
    records = {job.method: done[job.file_name] for job in jobs}
    losses = {
        name: final_losses(record, args.seeds).tolist()
        for name, record in records.items()
    }
    print(markdown(table(args.factors, losses)))
    runs = {
        "task": f"{args.env} {jobs[0].settings['scale']}",
        "training": done[jobs[0].file_name]["training"],
        "good_lr": args.good_lr,
        "factors": list(args.factors),
        "seeds": list(jobs[0].seeds[: args.seeds]),
    }
    source = provenance()
    new: dict[str, dict[str, Any]] = {
        "final_val_loss": losses,  # per factor, per seed; nats per character
        "diverged": {
            name: sum(run["metrics"]["diverged"] for run in record["runs"])
            for name, record in records.items()
        },
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "provenance": dict.fromkeys(args.methods, source),
    }
    with changing(args.out):
        old = results_of(args.out, runs)
        by_method = {key: old.get(key, {}) | values for key, values in new.items()}
        write_json(args.out, runs | by_method)


def table(
    factors: tuple[float, ...], losses: dict[str, list[list[float]]]
) -> list[dict[str, str]]:
    """Return a row per method: the lowest and highest loss of any seed, by factor."""
    columns = [f"{factor:.3g}" for factor in factors]
    return [
        {"method": name}
        | {
            column: f"{min(by_seed):.2f} to {max(by_seed):.2f}"
            for column, by_seed in zip(columns, by_factor, strict=True)
        }
        for name, by_factor in losses.items()
    ]


def results_of(path: Path, runs: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a result file, or {} if it is of other runs."""
    result = read_results(path)
    same = all(result.get(name) == value for name, value in runs.items())
    return result if same else {}


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
