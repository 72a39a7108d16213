"""The paper's methods on Shakespeare at its scale: 8 seeds side by side each.

Every method is one `benchmarks.comparison.jobs` job, so it runs as in
`paper/tables.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, stdev
from typing import Any

from benchmarks.comparison.jobs import Job, run_job
from benchmarks.speed.gpu.session import Session, SubRun, rounded
from lr_gym import preset
from lr_gym.schedules import COSINE_FLOOR

SECONDS = 200.0  # a method
SEEDS = 8
LOWER = 0.5  # Table 1's peak over the preset's: 1e-3 of 2e-3
CURVES = ("iteration", "val_loss", "learning_rate")


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: As in the tables.
        method: A name that `find_method` knows.
        share: The initial rate over the preset's.
        settings: Further keywords of `gym.make`.
    """

    name: str
    method: str
    share: float
    settings: Mapping[str, Any] = field(default_factory=dict)


def methods() -> list[Method]:
    """Return the rows: the paper's at its rate and at twice the rate, then others."""
    rows = []
    good = preset("paper", "shakespeare").learning_rate
    for suffix, share in (("", LOWER), (", twice the rate", 1.0)):
        # In its code the agent's rate never falls below the floor of the cosine.
        own = {
            "reward": "negative_loss",
            "min_lr": COSINE_FLOOR * LOWER * good,
        }
        real = {**own, "base_schedule": "constant"}
        rows += [
            Method(f"baseline{suffix}", "cosine", share),
            Method(f"as published{suffix}", "as_published", share, own),
            Method(f"real control{suffix}", "q_paper", share, real),
        ]
    return [
        *rows,
        Method("linear to zero", "linear", 1.0),
        Method("WSD", "wsd", 1.0),
        Method("default controller, from 1/30 of the rate", "update_size", 1 / 30),
        Method("default controller, from 30 times the rate", "update_size", 30.0),
    ]


def plan(session: Session) -> list[SubRun]:
    """Return a sub-run per method."""
    seconds = session.pick(SECONDS, 0.0)
    return [
        SubRun(row.name, seconds, partial(run_method, session, row))
        for row in methods()
    ]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the mean best validation losses."""
    return "; ".join(
        f"{k}: {run['best_val_loss']['mean']:.4f}" for k, run in runs.items()
    )


def run_method(session: Session, row: Method) -> dict[str, Any]:
    """Run one method on all seeds, side by side."""
    seeds = tuple(range(session.pick(SEEDS, 2)))
    good = preset("paper", "shakespeare").learning_rate
    return summary(
        Job(
            row.method,
            session.corpus.name,
            "test",
            seeds,
            learning_rates=(row.share * good,) * len(seeds),
            settings=job_settings(session, **row.settings),
        )
    )


def job_settings(session: Session, **more: Any) -> dict[str, Any]:
    """Return a job's keywords of `gym.make`: this session's, then `more`."""
    own = {"scale": "paper", **session.settings, "compile": session.long_compile}
    return own | more


def summary(job: Job) -> dict[str, Any]:
    """Run a job; return its losses by seed, their means and errors, and the curves."""
    record = run_job(job)
    runs = record["runs"]
    found: dict[str, Any] = {
        "method": job.method,
        "seeds": [run["seed"] for run in runs],
        "learning_rates": [run["learning_rate"] for run in runs],
        "diverged": [run["metrics"]["diverged"] for run in runs],
        "training": record["training"],
        "settings": record["settings"],
        "precision": record["precision"],
        "training_seconds": runs[0]["metrics"]["train_seconds"] * len(runs),
        "curves": [
            {name: rounded(run["curves"][name]) for name in CURVES} for run in runs
        ],
    }
    for metric in ("best_val_loss", "final_val_loss", "test_loss"):
        losses = [float(run["metrics"][metric]) for run in runs]
        found[metric] = {"by_seed": losses, **mean_and_error(losses)}
    return found


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Return the mean, and the standard deviation over the root of their number."""
    return {
        "mean": fmean(values),
        "standard_error": stdev(values) / len(values) ** 0.5,
    }
