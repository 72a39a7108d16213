"""The default rule with and without its weight term and its bound on the rise.

    python -m benchmarks.controller.rule_choice

With the first version of the rule, narrow models stalled early, at the loss of the
characters' frequencies. Two changes fixed that. This ablation runs the rule with
neither, each and both, on tasks that are on no held-out list, from learning rates ten
times too low and too high, and WSD at a grid of peaks. Decisions are at the same shares
of a run, whatever its length. Seeds are those of `wrong_rates.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.command_line import parse_command_line
from benchmarks.comparison.executors import SerialExecutor, run_all
from benchmarks.comparison.fixed_plan import one_line_job_errors
from benchmarks.controller.instance_jobs import GRID_CENTER, Cell, make_cells
from benchmarks.controller.rate_jobs import FIRST_SEED, final_losses, rate_job
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown
from lr_gym.controllers import UpdateSizeRule
from lr_gym.controllers.policies.policy_file import save_policy
from lr_gym.mdp.instances import Instance
from lr_gym.trainers import update_size

SCALE = "tiny"  # the preset of what the tasks leave open
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


TASK_SIZES = (  # corpus, layers, width, iterations
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
        good_lr=GRID_CENTER,
        lr_factor=1.0,  # every method has its own initial learning rates
    )
    for corpus, n_layer, n_embd, max_iters in TASK_SIZES
)
VARIANTS = (
    Variant(0.0, UNBOUNDED),  # the first version
    Variant(0.0, 1.5),
    Variant(1.2, UNBOUNDED),
    Variant(1.2, 1.5),  # the default
)


@dataclass
class Args:
    """Run the unfinished jobs of all variants, in this process."""

    only: tuple[int, ...] = tuple(range(len(TASKS)))
    """Indices of the tasks; default all."""
    peaks: tuple[float, ...] = tuple(GRID_CENTER * 2.0**k for k in range(-4, 4))
    """Peak learning rates of the schedule."""
    starts: tuple[float, ...] = (GRID_CENTER / 10.0, GRID_CENTER * 10.0)
    """Initial learning rates of the controller."""
    seeds: int = 3
    """Runs per learning rate."""
    jobs: Path = Path("results/rule_choice")
    """Folder of finished jobs, which are not run again."""
    fresh: bool = False
    """Run jobs again that were made by other code; old files move to the folder old."""
    out: Path = Path("benchmarks/results/controller/rule_choice.json")
    """The result file."""


@contextmanager
def weight_term(factor: float) -> Iterator[None]:
    """Set the factor of the weight term in the update size, in this process."""
    default = update_size.RELATIVE_CHANGE_FACTOR
    update_size.RELATIVE_CHANGE_FACTOR = factor
    try:
        yield
    finally:
        update_size.RELATIVE_CHANGE_FACTOR = default


def losses(
    cells: Sequence[Cell],
    method: str,
    rates: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
    *,
    fresh: bool,
) -> list[list[list[float]]]:
    """Run unfinished jobs; return final validation losses by cell, rate and seed."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [rate_job(cell.task, method, rates, seeds) for cell in cells]
    done = run_all(lambda _: jobs, folder, SerialExecutor(), fresh=fresh)
    return [final_losses(done[job.file_name], len(seeds)).tolist() for job in jobs]


def main(
    args: Args,
    tasks: Sequence[Instance] = TASKS,
    variants: Sequence[Variant] = VARIANTS,
) -> dict[str, Any]:
    """Run unfinished jobs, print the table, write the result."""
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    with one_line_job_errors():
        if not seeds:
            raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
        unknown = [n for n in args.only if not 0 <= n < len(tasks)]
        if unknown or not args.only:
            raise ValueError(
                f"--only must be from 0 to {len(tasks) - 1}, got {unknown or args.only}"
            )
        selected = [tasks[number] for number in dict.fromkeys(args.only)]
        cells = make_cells(selected, SCALE, {})
        tuned = losses(cells, SCHEDULE, args.peaks, seeds, args.jobs, fresh=args.fresh)
        variant_losses = []
        for variant in variants:
            rule = args.jobs / f"most_rise-{variant.most_rise:g}.safetensors"
            save_policy(UpdateSizeRule(most_rise=variant.most_rise), rule)
            # The factor is not part of a job, so it names the folder.
            folder = args.jobs / f"weights-{variant.weights:g}"
            with weight_term(variant.weights):
                variant_losses.append(
                    losses(
                        cells, str(rule), args.starts, seeds, folder, fresh=args.fresh
                    )
                )
    result = {
        "tasks": [asdict(task) for task in selected],
        "peaks": list(args.peaks),
        "starts": list(args.starts),
        "seeds": list(seeds),
        SCHEDULE: tuned,  # final validation losses per task, peak and seed
        "variants": [
            asdict(variant) | {"final_val_loss": by_task}
            for variant, by_task in zip(variants, variant_losses, strict=True)
        ],
    }
    print(markdown(table(result)))
    return write_result(args.out, result)


def table(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row per task: the schedule at its best peak, then every variant.

    Losses are in nats per character: of the schedule the mean over seeds, of a variant
    the mean (and the worst) over initial learning rates and seeds.
    """
    best = f"best of {len(result['peaks'])} {SCHEDULE.upper()} peaks"
    names = [Variant(v["weights"], v["most_rise"]).name for v in result["variants"]]
    rows = []
    for number, task in enumerate(result["tasks"]):
        peaks = np.mean(result[SCHEDULE][number], axis=1)
        size = f"{task['n_layer']}x{task['n_embd']}, {task['max_iters']} iterations"
        row = {"task": f"{task['corpus']} {size}", best: f"{peaks.min():.3f}"}
        for name, variant in zip(names, result["variants"], strict=True):
            variant_loss = variant["final_val_loss"][number]
            row[name] = f"{np.mean(variant_loss):.3f} ({np.max(variant_loss):.2f})"
        rows.append(row)
    return rows


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
