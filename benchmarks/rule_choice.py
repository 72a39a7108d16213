"""Why the default controller weighs the weights, and bounds its rise.

    python benchmarks/rule_choice.py

Under the rule as it was first, narrow models stalled early: at the loss of the
characters' frequencies. Here the measure and the rule run with and without what was
done about it, on tasks that are on no list of held-out ones, from rates ten times too
low and too high, beside WSD at a grid of peaks. Seeds are those of `wrong_rates.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.execution import Here, run_all
from benchmarks.fixed_plan import one_line_errors
from benchmarks.instance_jobs import GRID
from benchmarks.jobs import Job
from benchmarks.provenance import provenance
from benchmarks.table_text import markdown
from benchmarks.wrong_rates import FIRST_SEED
from lr_gym import update_size
from lr_gym.controllers import UpdateSizeRule
from lr_gym.controllers.policy_file import save_policy
from lr_gym.files import write_text

SCALE = "tiny"  # what tasks do not say
SCHEDULE = "wsd"
HEAD = 32  # channels of a head, as in the preset
UNBOUNDED = 1000.0  # the largest that the rule allows


@dataclass(frozen=True)
class DevTask:
    """A run that no controller is judged by."""

    corpus: str
    n_layer: int
    n_embd: int
    max_iters: int
    batch_size: int = 16

    @property
    def name(self) -> str:
        """The task in one line, as instances are named."""
        size = f"{self.n_layer}x{self.n_embd} b{self.batch_size}"
        return f"{self.corpus} {size} {self.max_iters} its"

    def job(self, method: str, rates: tuple[float, ...], seeds: int) -> Job:
        """Return the job of a method from every rate with every seed."""
        runs = [(rate, FIRST_SEED + n) for rate in rates for n in range(seeds)]
        return Job(
            method,
            self.corpus,
            "test",
            tuple(seed for _, seed in runs),
            learning_rates=tuple(rate for rate, _ in runs),
            settings={
                "scale": SCALE,
                "n_layer": self.n_layer,
                "n_embd": self.n_embd,
                "n_head": self.n_embd // HEAD,
                "batch_size": self.batch_size,
                "max_iters": self.max_iters,
                "max_lr": max(1.0, *rates),
            },
        )


@dataclass(frozen=True)
class Variant:
    """What the weights count in an update's size; how far a reached rate may rise."""

    weights: float
    most_rise: float

    @property
    def name(self) -> str:
        """The variant in one line."""
        bound = "none" if self.most_rise == UNBOUNDED else f"{self.most_rise:g}"
        return f"weights {self.weights:g}, bound {bound}"


TASKS = (
    DevTask("shakespeare", 4, 32, 240),
    DevTask("text8", 4, 32, 240),
    DevTask("text8", 6, 32, 360),
    DevTask("shakespeare", 2, 32, 480),
    DevTask("text8", 4, 32, 600),
    DevTask("markov", 2, 32, 240),
    DevTask("text8", 3, 64, 240),
)
VARIANTS = (
    Variant(0.0, UNBOUNDED),  # as it was first
    Variant(0.0, 1.5),
    Variant(1.2, UNBOUNDED),
    Variant(1.2, 1.5),  # as it is
)


@dataclass
class Args:
    """Run what is missing of all variants on all tasks, in this process."""

    peaks: tuple[float, ...] = tuple(GRID * 2.0**k for k in range(-4, 4))
    """Peak rates of the schedule."""
    starts: tuple[float, ...] = (GRID / 10.0, GRID * 10.0)
    """Rates that the controller is given."""
    seeds: int = 3
    """Runs per rate."""
    jobs: Path = Path("results/rule_choice")
    """Folder of finished jobs, which are not run again."""
    out: Path = Path("benchmarks/results/rule_choice.json")
    """Where the result is kept."""


@contextmanager
def counting(weights: float) -> Iterator[None]:
    """Let the weights count as much in an update's size, in this process."""
    usual = update_size.WEIGHTS
    update_size.WEIGHTS = weights
    try:
        yield
    finally:
        update_size.WEIGHTS = usual


def losses(jobs: Sequence[Job], folder: Path, seeds: int) -> list[list[list[float]]]:
    """Return final validation losses by job, rate and seed; run what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run_all(lambda _: list(jobs), folder, Here())
    found = [
        [run["metrics"]["final_val_loss"] for run in done[job.file_name]["runs"]]
        for job in jobs
    ]
    return [np.reshape(own, (-1, seeds)).tolist() for own in found]


def run_variant(
    variant: Variant, args: Args, tasks: Sequence[DevTask]
) -> list[list[list[float]]]:
    """Return the rule's final losses by task, rate and seed."""
    args.jobs.mkdir(parents=True, exist_ok=True)
    rule = args.jobs / f"most_rise-{variant.most_rise:g}.safetensors"
    save_policy(UpdateSizeRule(most_rise=variant.most_rise), rule)
    jobs = [task.job(str(rule), args.starts, args.seeds) for task in tasks]
    with counting(variant.weights):  # a job does not name it, so its folder does
        return losses(jobs, args.jobs / f"weights-{variant.weights:g}", args.seeds)


def main(
    args: Args,
    tasks: Sequence[DevTask] = TASKS,
    variants: Sequence[Variant] = VARIANTS,
) -> dict[str, Any]:
    """Run what is missing, print a table, keep the result."""
    if args.seeds < 1:
        raise SystemExit(f"error: --seeds must be at least 1, got {args.seeds}")
    with one_line_errors():
        schedules = [task.job(SCHEDULE, args.peaks, args.seeds) for task in tasks]
        tuned = losses(schedules, args.jobs, args.seeds)
        found = {variant: run_variant(variant, args, tasks) for variant in variants}
    result = {
        "tasks": [asdict(task) | {"name": task.name} for task in tasks],
        "peaks": list(args.peaks),
        "starts": list(args.starts),
        "seeds": list(range(FIRST_SEED, FIRST_SEED + args.seeds)),
        SCHEDULE: tuned,  # final validation losses per task, peak and seed
        "variants": [
            asdict(variant) | {"name": variant.name, "final_val_loss": own}
            for variant, own in found.items()
        ],
        "provenance": provenance(),
    }
    print(markdown(table(result)))
    write_text(args.out, json.dumps(result, indent=1) + "\n")
    return result


def table(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row per task: the best of the schedule's peaks, then every variant.

    Losses in nats per character, the mean over rates and seeds and the worst; of the
    schedule the mean over seeds.
    """
    best = f"best of {len(result['peaks'])} {SCHEDULE.upper()} peaks"
    rows = []
    for number, task in enumerate(result["tasks"]):
        peaks = np.mean(result[SCHEDULE][number], axis=1)
        row = {"task": task["name"], best: f"{peaks.min():.3f}"}
        for variant in result["variants"]:
            own = variant["final_val_loss"][number]
            row[variant["name"]] = f"{np.mean(own):.3f} ({np.max(own):.2f})"
        rows.append(row)
    return rows


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
