"""What becomes of a run whose initial learning rate is wrong, by method.

    python -m benchmarks.controller.wrong_rates --env shakespeare --scale tiny

Each method runs from a good rate times 1/30 to 30, as it is: nothing is tuned. The runs
and seeds are not those of the held-out instances (`tuning_free.py`), so that a rule may
be chosen by what is seen here.
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
from benchmarks.comparison.jobs import Job
from benchmarks.provenance import provenance
from benchmarks.results_file import read_results, write_json
from benchmarks.table_text import markdown
from lr_gym.mdp.instances import HELD_OUT_LR_FACTORS

FIRST_SEED = 5_000  # far from those of tuning, of learning and of testing


@dataclass
class Args:
    """Run every method from wrong rates."""

    env: str = "shakespeare"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """Size of the model and length of a run."""
    methods: tuple[str, ...] = (
        "wsd",
        "reactive",
        "ramp_and_undo_near",
        "ramp_and_undo",
        "update_size",
    )
    """Names as of compare_agents.py's --agents."""
    good_lr: float = 8e-3
    """The rate that the others are multiples of."""
    factors: tuple[float, ...] = HELD_OUT_LR_FACTORS
    """Initial rates, as multiples of --good-lr."""
    seeds: int = 3
    """Runs per rate."""
    settings: str = "{}"
    """Further keywords of gym.make for every method, as JSON."""
    workers: int | None = None
    """Processes; default: one per core, one in all with a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to run on; local starts one here."""
    gpus: float = 0.0
    """With --ray: share of a GPU that a job needs."""
    jobs: Path = Path("results/wrong_rates")
    """Folder of finished jobs, which are not run again."""
    out: Path = Path("benchmarks/results/controller/wrong_rates.json")
    """Where the result is kept, beside what is there of other methods on these runs."""


def make_jobs(args: Args) -> list[Job]:
    """Return one job per method: all rates and seeds side by side."""
    (task,) = make_tasks(args, [args.env], args.methods)
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    runs = [(args.good_lr * factor, s) for factor in args.factors for s in seeds]
    rates = tuple(rate for rate, _ in runs)
    reach = {"max_lr": max(1.0, *rates), "min_lr": min(1e-9, *rates)}
    return [
        Job(
            name,
            args.env,
            "test",
            tuple(seed for _, seed in runs),
            learning_rates=rates,
            settings={**task.settings, **reach},
        )
        for name in args.methods
    ]


def table(args: Args, records: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Return, by method, the final validation losses per factor and seed."""
    found = {}
    for name, record in zip(args.methods, records, strict=True):
        losses = [run["metrics"]["final_val_loss"] for run in record["runs"]]
        found[name] = [
            losses[first : first + args.seeds]
            for first in range(0, len(losses), args.seeds)
        ]
    return found


def main(args: Args) -> None:
    """Run what is missing, print a table, keep the result."""
    with one_line_errors():
        check_counts(args, "seeds", "workers")
        jobs = make_jobs(args)
        done = run_plan(jobs, args.jobs, args)
    records = [done[job.file_name] for job in jobs]
    losses = table(args, records)
    names = [f"{factor:.3g}" for factor in args.factors]
    rows = [
        {
            "method": name,
            **{
                column: f"{min(found):.2f} to {max(found):.2f}"
                for column, found in zip(names, rows, strict=True)
            },
        }
        for name, rows in losses.items()
    ]
    print(markdown(rows))
    runs = {
        "task": f"{args.env} {jobs[0].settings['scale']}",
        "training": records[0]["training"],
        "good_lr": args.good_lr,
        "factors": list(args.factors),
        "seeds": list(jobs[0].seeds[: args.seeds]),
    }
    facts = provenance()
    found = {
        "final_val_loss": losses,  # per factor, per seed; nats per character
        "diverged": {
            name: sum(run["metrics"]["diverged"] for run in record["runs"])
            for name, record in zip(args.methods, records, strict=True)
        },
        "seconds": {
            name: record["seconds"]
            for name, record in zip(args.methods, records, strict=True)
        },
        "provenance": dict.fromkeys(args.methods, facts),
    }
    known = kept(args.out, runs)
    result = runs | {name: known.get(name, {}) | own for name, own in found.items()}
    write_json(args.out, result)


def kept(path: Path, runs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a result file has by method; nothing, where it is of other runs."""
    result = read_results(path)
    same = all(result.get(name) == value for name, value in runs.items())
    return result if same else {}


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
