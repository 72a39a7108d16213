"""Does one update size fit models of every width?

    python -m benchmarks.controller.widths --env shakespeare --scale tiny

The default controller steers how far updates may move a layer's outputs to one target,
for every model. Here the same model is trained at several widths, heads of one size:
with WSD at a grid of peak rates, and by the controller, with its own target and others,
from rates far too low and too high. Seeds are those of `wrong_rates.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.comparison.fixed_plan import (
    check_counts,
    make_tasks,
    one_line_errors,
    run_plan,
)
from benchmarks.comparison.jobs import Job
from benchmarks.controller.wrong_rates import FIRST_SEED
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown
from lr_gym.config import preset
from lr_gym.controllers import UpdateSizeRule
from lr_gym.controllers.policies.policy_file import save_policy
from lr_gym.trainers.base import FloatArray

SCHEDULE = "wsd"


@dataclass
class Args:
    """Train every width at all peaks, and by the controller."""

    env: str = "shakespeare"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """What else the model is, and length of a run."""
    widths: tuple[int, ...] = (32, 64, 128, 192)
    """Multiples of the size of the scale's heads."""
    peaks: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    """Peak rates of the schedule."""
    targets: tuple[float, ...] = (0.07,)
    """Update sizes that the controller steers to; its own is 0.07."""
    starts: tuple[float, ...] = (2.7e-4, 0.24)
    """Rates that the controller is given."""
    seeds: int = 2
    """Runs per rate."""
    settings: str = "{}"
    """Further keywords of gym.make for every run, as JSON."""
    workers: int | None = None
    """Processes; default: one per core, one in all with a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to run on; local starts one here."""
    gpus: float = 0.0
    """With --ray: share of a GPU that a job needs."""
    jobs: Path = Path("results/widths")
    """Folder of finished jobs, which are not run again."""
    out: Path = Path("benchmarks/results/controller/widths.json")
    """Where the result is kept."""


def make_jobs(args: Args) -> list[Job]:
    """Return the jobs of every width: all peaks, then every target.

    Raises:
        ValueError: A width is no multiple of the size of a head, or an option is wrong.
    """
    (task,) = make_tasks(args, [args.env], (SCHEDULE,))
    base = preset(task.settings["scale"], args.env)
    head = base.n_embd // base.n_head
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    args.jobs.mkdir(parents=True, exist_ok=True)
    rates = {SCHEDULE: args.peaks}
    for target in args.targets:
        rule = args.jobs / f"update_size-{target:g}.safetensors"
        save_policy(UpdateSizeRule(target=target), rule)
        rates[str(rule)] = args.starts
    jobs = []
    for width in args.widths:
        if width < head or width % head:
            raise ValueError(f"--widths must be multiples of {head}, got {width}")
        size = {"n_embd": width, "n_head": width // head}
        for name, given in rates.items():
            runs = [(rate, seed) for rate in given for seed in seeds]
            jobs.append(
                Job(
                    name,
                    args.env,
                    "test",
                    tuple(seed for _, seed in runs),
                    learning_rates=tuple(rate for rate, _ in runs),
                    settings={**task.settings, **size, "max_lr": max(1.0, *given)},
                )
            )
    return jobs


def summary(
    args: Args, width: int, schedule: dict[str, Any], rules: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what the jobs of one width say; losses in nats per character."""
    losses = _by_rate(args, schedule)
    mean = losses.mean(axis=1)
    best = int(mean.argmin())
    controllers = []
    for target, record in zip(args.targets, rules, strict=True):
        found = _by_rate(args, record)
        highest = [max(run["curves"]["learning_rate"]) for run in record["runs"]]
        controllers.append(
            {
                "target": target,
                "final_val_loss": found.tolist(),  # per start, per seed
                "above_best": (found - mean[best]).tolist(),
                "highest_rate": np.reshape(highest, found.shape).tolist(),
            }
        )
    return {
        "width": width,
        "final_val_loss": losses.tolist(),  # of the schedule, per peak, per seed
        "best_peak": args.peaks[best],
        "best_at_an_end": best in (0, len(args.peaks) - 1),
        "best_final_val_loss": float(mean[best]),
        "controllers": controllers,
        "seconds": sum(record["seconds"] for record in (schedule, *rules)),
    }


def _by_rate(args: Args, record: dict[str, Any]) -> FloatArray:
    """Return a job's final validation losses, (rates, seeds)."""
    losses = [run["metrics"]["final_val_loss"] for run in record["runs"]]
    return np.reshape(losses, (-1, args.seeds))


def main(args: Args) -> dict[str, Any]:
    """Run what is missing, print a table, keep the result."""
    with one_line_errors():
        check_counts(args, "seeds", "workers")
        jobs = make_jobs(args)
        done = run_plan(jobs, args.jobs, args)
    records = [done[job.file_name] for job in jobs]
    each = 1 + len(args.targets)
    result = {
        "task": f"{args.env} {jobs[0].settings['scale']}",
        "training": records[0]["training"],
        "peaks": list(args.peaks),
        "starts": list(args.starts),
        "seeds": list(jobs[0].seeds[: args.seeds]),
        "widths": [
            summary(
                args, width, records[n * each], records[n * each + 1 : (n + 1) * each]
            )
            for n, width in enumerate(args.widths)
        ],
    }
    print(markdown(table(result)))
    return write_result(args.out, result)


def table(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row per width."""
    rows = []
    for width in result["widths"]:
        end = ", the last one tried" if width["best_at_an_end"] else ""
        row = {
            "width": str(width["width"]),
            "best WSD peak LR": f"{width['best_peak']:g}{end}",
            "its final val loss": f"{width['best_final_val_loss']:.3f}",
        }
        several = len(width["controllers"]) > 1
        for rule in width["controllers"]:
            target = f", target {rule['target']:g}" if several else ""
            gaps, highest = np.array(rule["above_best"]), np.array(rule["highest_rate"])
            row[f"controller minus that, mean (worst), nats{target}"] = (
                f"{gaps.mean():+.3f} ({gaps.max():+.3f})"
            )
            row[f"highest LR of the controller{target}"] = (
                f"{highest.min():.2g} to {highest.max():.2g}"
            )
        rows.append(row)
    return rows


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
