"""How often the losses of held-out runs lie in the laws' intervals.

    python -m benchmarks.surrogate.intervals

Each law of the package is fitted ten times more, every time without a tenth of its
runs. The held-out runs have other peaks and seeds. A seed that diverges is outside.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.command_line import parse_command_line
from benchmarks.paths import RESULTS
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown
from lr_gym import load_law
from lr_gym.surrogate.fitting import refit
from lr_gym.surrogate.law_files import packaged_laws
from lr_gym.surrogate.residuals import has_diverged
from lr_gym.surrogate.runs import load_runs, padded
from lr_gym.surrogate.search import one_thread
from lr_gym.surrogate.uncertainty import cross_validate, predict_interval

COVERAGES = (0.5, 0.8, 0.9)


@dataclass
class Args:
    """Fit the folds of all laws; print and write the coverage."""

    folds: int = 10
    """Fits per law."""
    out: Path = Path("benchmarks/results/surrogate/intervals.json")
    """The result file."""


def task_intervals(task: str, folds: int) -> dict[str, Any]:
    """Return the coverage and the widths of one law's intervals."""
    law = load_law(RESULTS / "surrogate" / f"{task}.json")
    runs = load_runs(RESULTS / "surrogate" / f"{task}-fit.npz")
    runs = [run for run in runs if not has_diverged(run)]

    with one_thread():
        ensemble, errors = cross_validate(
            runs, law.constants, partial(refit, law.constants), folds
        )
    law = dataclasses.replace(law, ensemble=ensemble, errors=errors)
    held_out = load_runs(RESULTS / "surrogate" / f"{task}-held-out.npz")
    losses = padded(held_out, "val_loss")
    result: dict[str, Any] = {"task": task, "runs": len(held_out)}
    for coverage in COVERAGES:
        low, middle, high = predict_interval(law, held_out, coverage)
        inside = (low <= losses) & (losses <= high)  # false where a run diverged
        result[str(coverage)] = {
            "inside_at_the_end": float(inside[:, -1].mean()),
            "inside_after_the_first_tenth": float(inside[:, 3:].mean()),
            "median_half_width": float(np.median((high - middle)[:, -1])),
        }
    return result


def _share(row: dict[str, Any], coverage: float) -> str:
    return f"{row[str(coverage)]['inside_at_the_end']:.0%}"


def table(tasks: list[dict[str, Any]]) -> str:
    """Return a row per task."""
    return markdown(
        [
            {
                "task": row["task"].replace("-", " "),
                **{
                    f"in the {coverage:.0%} interval": _share(row, coverage)
                    for coverage in COVERAGES
                },
                "half the 90% interval, nats": f"{row['0.9']['median_half_width']:.3f}",
                "runs": str(row["runs"]),
            }
            for row in tasks
        ]
    )


def main(args: Args) -> dict[str, Any]:
    """Do all; return the result."""
    names = [f"{corpus}-{scale}" for corpus, scale in packaged_laws()]
    tasks = [task_intervals(name, args.folds) for name in names]
    print(table(tasks))
    return write_result(args.out, {"folds": args.folds, "tasks": tasks})


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
