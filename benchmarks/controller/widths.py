"""Does one update size fit models of every width?

    python -m benchmarks.controller.widths --env shakespeare --scale tiny

The default controller steers the relative change of a layer's outputs by an update to
one target, for every model. Here the same model is trained at several widths, with
heads of one size: with WSD at a grid of peak learning rates, and by the controller,
from learning rates far too low and far too high. Seeds are those of `wrong_rates.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

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
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown
from lr_gym.config import preset
from lr_gym.controllers import UpdateSizeRule
from lr_gym.controllers.policies.policy_file import save_policy

SCHEDULE = "wsd"


@dataclass
class Args(RunOptions):
    """Train every width at all peaks, and by the controller."""

    env: str = "shakespeare"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """Everything about the model but its width, and the length of a run."""
    widths: tuple[int, ...] = (32, 64, 128, 192)
    """Widths of the model: multiples of the width of the scale's heads."""
    peaks: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    """Peak learning rates of the schedule."""
    targets: tuple[float, ...] = (0.07,)
    """Target update sizes of the controller; its default is 0.07."""
    starts: tuple[float, ...] = (2.7e-4, 0.24)
    """Initial learning rates of the controller."""
    seeds: int = 2
    """Runs per learning rate."""
    jobs: Path = Path("results/widths")
    """Folder of finished jobs, which are not run again."""
    out: Path = Path("benchmarks/results/controller/widths.json")
    """The result file."""


def make_jobs(args: Args) -> list[Job]:
    """Return the jobs of every width: all peaks, then every target.

    Raises:
        ValueError: A width is not a multiple of the heads' width, or another option is
            wrong.
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
        for method, learning_rates in rates.items():
            settings = {**task.settings, **size, "max_lr": max(1.0, *learning_rates)}
            sized = Task(args.env, settings)
            jobs.append(rate_job(sized, method, learning_rates, seeds))
    return jobs


def summary(
    args: Args, width: int, schedule: dict[str, Any], rules: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the result of one width; losses in nats per character.

    Args:
        args: The command line.
        width: Width of the model.
        schedule: Record of the schedule's job.
        rules: Records of the controller's jobs, one per target.
    """
    losses = final_losses(schedule, args.seeds)
    mean = losses.mean(axis=1)
    best = int(mean.argmin())
    controllers = []
    for target, record in zip(args.targets, rules, strict=True):
        controlled = final_losses(record, args.seeds)
        highest = [max(run["curves"]["learning_rate"]) for run in record["runs"]]
        controllers.append(
            {
                "target": target,
                "final_val_loss": controlled.tolist(),  # per start, per seed
                "above_best": (controlled - mean[best]).tolist(),
                "highest_rate": np.reshape(highest, controlled.shape).tolist(),
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


def main(args: Args) -> dict[str, Any]:
    """Run unfinished jobs, print the table, write the result."""
    with one_line_job_errors():
        check_counts(args, "seeds", "workers")
        jobs = make_jobs(args)
        done = run_plan(jobs, args.jobs, args)
    records = [done[job.file_name] for job in jobs]
    jobs_per_width = 1 + len(args.targets)
    result = {
        "task": f"{args.env} {jobs[0].settings['scale']}",
        "training": records[0]["training"],
        "peaks": list(args.peaks),
        "starts": list(args.starts),
        "seeds": list(jobs[0].seeds[: args.seeds]),
        "widths": [
            summary(args, width, schedule, rules)
            for n, width in enumerate(args.widths)
            for schedule, *rules in [
                records[n * jobs_per_width : (n + 1) * jobs_per_width]
            ]
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
    main(parse_command_line(Args, __doc__))
