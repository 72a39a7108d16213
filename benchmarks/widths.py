"""Does one update size fit models of every width?

    python benchmarks/widths.py --env shakespeare --scale tiny

The default controller steers how far updates move a layer's outputs to one target, for
every model. Here the same model is trained at several widths, heads of one size: with
WSD at a grid of peak rates, and by the controller from rates far too low and too high.
Seeds are those of `wrong_rates.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.fixed_plan import check_counts, make_tasks, one_line_errors, run_plan
from benchmarks.jobs import Job
from benchmarks.provenance import provenance
from benchmarks.table_text import markdown
from benchmarks.wrong_rates import FIRST_SEED
from lr_gym.config import preset
from lr_gym.files import write_text

SCHEDULE, CONTROLLER = "wsd", "update_size"


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
    out: Path = Path("benchmarks/results/widths.json")
    """Where the result is kept."""


def make_jobs(args: Args) -> list[Job]:
    """Return two jobs per width: all peaks, and all rates that the controller is given.

    Raises:
        ValueError: A width is no multiple of the size of a head, or an option is wrong.
    """
    (task,) = make_tasks(args, [args.env], (SCHEDULE, CONTROLLER))
    base = preset(task.settings["scale"], args.env)
    head = base.n_embd // base.n_head
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    jobs = []
    for width in args.widths:
        if width < head or width % head:
            raise ValueError(f"--widths must be multiples of {head}, got {width}")
        size = {"n_embd": width, "n_head": width // head}
        for name, rates in ((SCHEDULE, args.peaks), (CONTROLLER, args.starts)):
            runs = [(rate, seed) for rate in rates for seed in seeds]
            jobs.append(
                Job(
                    name,
                    args.env,
                    "test",
                    tuple(seed for _, seed in runs),
                    learning_rates=tuple(rate for rate, _ in runs),
                    settings={**task.settings, **size, "max_lr": max(1.0, *rates)},
                )
            )
    return jobs


def summary(
    args: Args, width: int, schedule: dict[str, Any], controller: dict[str, Any]
) -> dict[str, Any]:
    """Return what two finished jobs say of one width; losses in nats per character."""
    losses = {
        name: np.reshape(
            [run["metrics"]["final_val_loss"] for run in record["runs"]],
            (-1, args.seeds),
        )
        for name, record in ((SCHEDULE, schedule), (CONTROLLER, controller))
    }
    mean = losses[SCHEDULE].mean(axis=1)
    best = int(mean.argmin())
    highest = [max(run["curves"]["learning_rate"]) for run in controller["runs"]]
    return {
        "width": width,
        "best_peak": args.peaks[best],
        "best_at_an_end": best in (0, len(args.peaks) - 1),
        "best_final_val_loss": float(mean[best]),
        "final_val_loss": {name: found.tolist() for name, found in losses.items()},
        "above_best": (losses[CONTROLLER] - mean[best]).tolist(),
        "controller_highest_rate": np.reshape(highest, (-1, args.seeds)).tolist(),
        "seconds": schedule["seconds"] + controller["seconds"],
    }


def main(args: Args) -> dict[str, Any]:
    """Run what is missing, print a table, keep the result."""
    with one_line_errors():
        check_counts(args, "seeds", "workers")
        jobs = make_jobs(args)
        done = run_plan(jobs, args.jobs, args)
    records = [done[job.file_name] for job in jobs]
    result = {
        "task": f"{args.env} {jobs[0].settings['scale']}",
        "training": records[0]["training"],
        "peaks": list(args.peaks),
        "starts": list(args.starts),
        "seeds": list(jobs[0].seeds[: args.seeds]),
        "widths": [
            summary(args, *group)
            for group in zip(args.widths, records[::2], records[1::2], strict=True)
        ],
        "provenance": provenance(),
    }
    print(markdown(table(result)))
    write_text(args.out, json.dumps(result, indent=1) + "\n")
    return result


def table(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row per width."""
    rows = []
    for found in result["widths"]:
        above = np.array(found["above_best"])
        rates = np.array(found["controller_highest_rate"])
        rows.append(
            {
                "width": str(found["width"]),
                "best WSD peak": f"{found['best_peak']:g}",
                "val loss there": f"{found['best_final_val_loss']:.3f}",
                "highest rate of the controller": (
                    f"{rates.min():.2g} to {rates.max():.2g}"
                ),
                "controller above the best, mean (worst)": (
                    f"{above.mean():+.3f} ({above.max():+.3f})"
                ),
            }
        )
    return rows


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
