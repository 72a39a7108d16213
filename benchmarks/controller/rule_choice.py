"""Why the default controller weighs the weights, and bounds its rise.

    python -m benchmarks.controller.rule_choice

Under the rule as it was first, narrow models stalled early: at the loss of the
characters' frequencies. Here the measure and the rule run with and without what was
done about it, on tasks that are on no list of held-out ones, from rates ten times too
low and too high, beside WSD at a grid of peaks. As on those lists, decisions fall at
the same shares of a run, whatever its length. Seeds are those of `wrong_rates.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison.executors import SerialExecutor, run_all
from benchmarks.comparison.fixed_plan import one_line_errors
from benchmarks.controller.instance_jobs import GRID, Cell, make_cells
from benchmarks.controller.wrong_rates import FIRST_SEED
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown
from lr_gym.controllers import UpdateSizeRule
from lr_gym.controllers.policies.policy_file import save_policy
from lr_gym.mdp.instances import Instance
from lr_gym.trainers import update_size

SCALE = "tiny"  # what tasks do not say
SCHEDULE = "wsd"
UNBOUNDED = 1000.0  # the largest bound that `UpdateSizeRule` takes


@dataclass(frozen=True)
class Variant:
    """The rule with or without its two later parts.

    Attributes:
        weights: Factor of the weight term in the update size; 0 leaves the term out.
        most_rise: Bound on the rise of the learning rate once the target is reached.
    """

    weights: float
    most_rise: float

    @property
    def name(self) -> str:
        """The column of the table."""
        weighted, bounded = self.weights > 0.0, self.most_rise < UNBOUNDED
        if weighted:
            return "both (the default)" if bounded else "weight term only"
        return "bound only" if bounded else "neither"


SIZES = (  # corpus, layers, width, iterations
    ("shakespeare", 4, 32, 240),
    ("text8", 4, 32, 240),
    ("text8", 6, 32, 360),
    ("shakespeare", 2, 32, 480),
    ("text8", 4, 32, 600),
    ("markov", 2, 32, 240),
    ("text8", 3, 64, 240),
)
TASKS = tuple(
    Instance(
        corpus=corpus,
        n_layer=n_layer,
        n_embd=n_embd,
        batch_size=16,
        max_iters=max_iters,
        good_lr=GRID,
        lr_factor=1.0,  # methods start from rates of their own
    )
    for corpus, n_layer, n_embd, max_iters in SIZES
)
VARIANTS = (
    Variant(0.0, UNBOUNDED),  # as it was first
    Variant(0.0, 1.5),
    Variant(1.2, UNBOUNDED),
    Variant(1.2, 1.5),  # as it is
)


@dataclass
class Args:
    """Run what is missing of all variants, in this process."""

    only: tuple[int, ...] = tuple(range(len(TASKS)))
    """Numbers of the tasks to take, from 0; default all."""
    peaks: tuple[float, ...] = tuple(GRID * 2.0**k for k in range(-4, 4))
    """Peak rates of the schedule."""
    starts: tuple[float, ...] = (GRID / 10.0, GRID * 10.0)
    """Rates that the controller is given."""
    seeds: int = 3
    """Runs per rate."""
    jobs: Path = Path("results/rule_choice")
    """Folder of finished jobs, which are not run again."""
    out: Path = Path("benchmarks/results/controller/rule_choice.json")
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


def losses(
    cells: Sequence[Cell],
    method: str,
    rates: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
) -> list[list[list[float]]]:
    """Return final validation losses by cell, rate and seed; run what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [seed for _ in rates for seed in seeds]
    given = tuple(rate for rate in rates for _ in seeds)
    jobs = [cell.task.job(method, "test", runs, learning_rates=given) for cell in cells]
    done = run_all(lambda _: jobs, folder, SerialExecutor())
    found = [
        [run["metrics"]["final_val_loss"] for run in done[job.file_name]["runs"]]
        for job in jobs
    ]
    return [np.reshape(own, (-1, len(seeds))).tolist() for own in found]


def main(
    args: Args,
    tasks: Sequence[Instance] = TASKS,
    variants: Sequence[Variant] = VARIANTS,
) -> dict[str, Any]:
    """Run what is missing, print a table, keep the result."""
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    with one_line_errors():
        if not seeds:
            raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
        beyond = [n for n in args.only if not 0 <= n < len(tasks)]
        if beyond or not args.only:
            raise ValueError(
                f"--only must be from 0 to {len(tasks) - 1}, got {beyond or args.only}"
            )
        chosen = [tasks[number] for number in dict.fromkeys(args.only)]
        cells = make_cells(chosen, SCALE, {})
        tuned = losses(cells, SCHEDULE, args.peaks, seeds, args.jobs)
        found = []
        for variant in variants:
            rule = args.jobs / f"most_rise-{variant.most_rise:g}.safetensors"
            save_policy(UpdateSizeRule(most_rise=variant.most_rise), rule)
            # No job says what the weights counted, so its folder does.
            folder = args.jobs / f"weights-{variant.weights:g}"
            with counting(variant.weights):
                found.append(losses(cells, str(rule), args.starts, seeds, folder))
    result = {
        "tasks": [asdict(task) for task in chosen],
        "peaks": list(args.peaks),
        "starts": list(args.starts),
        "seeds": list(seeds),
        SCHEDULE: tuned,  # final validation losses per task, peak and seed
        "variants": [
            asdict(variant) | {"final_val_loss": own}
            for variant, own in zip(variants, found, strict=True)
        ],
    }
    print(markdown(table(result)))
    return write_result(args.out, result)


def table(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row per task: the best of the schedule's peaks, then every variant.

    Losses in nats per character, the mean over rates and seeds and the worst; of the
    schedule the mean over seeds.
    """
    best = f"best of {len(result['peaks'])} {SCHEDULE.upper()} peaks"
    names = [Variant(v["weights"], v["most_rise"]).name for v in result["variants"]]
    rows = []
    for number, task in enumerate(result["tasks"]):
        peaks = np.mean(result[SCHEDULE][number], axis=1)
        size = f"{task['n_layer']}x{task['n_embd']}, {task['max_iters']} iterations"
        row = {"task": f"{task['corpus']} {size}", best: f"{peaks.min():.3f}"}
        for name, variant in zip(names, result["variants"], strict=True):
            own = variant["final_val_loss"][number]
            row[name] = f"{np.mean(own):.3f} ({np.max(own):.2f})"
        rows.append(row)
    return rows


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
