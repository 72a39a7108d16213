"""The paper's methods on Shakespeare at its scale, 4 seeds each.

Every method is one job of `benchmarks.comparison.jobs`, as in `paper/tables.py`.
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

SECONDS = 100.0  # per method
SEEDS = 4
TABLE_1_SHARE = 0.5  # of the preset's learning rate: 1e-3 of 2e-3
CURVES = ("iteration", "val_loss", "learning_rate")


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: As in the tables.
        method: A name that `find_method` takes.
        share: The initial learning rate over the preset's.
        settings: Further keywords of `gym.make`.
    """

    name: str
    method: str
    share: float
    settings: Mapping[str, Any] = field(default_factory=dict)


def methods() -> list[Method]:
    """Return the paper's methods at its LR and at twice its LR, then others."""
    rows = []
    reference_lr = preset("paper", "shakespeare").learning_rate
    for suffix, share in (("", TABLE_1_SHARE), (", twice the rate", 1.0)):
        # In the paper's code the agent's learning rate has the floor of the cosine.
        published = {
            "reward": "negative_loss",
            "min_lr": COSINE_FLOOR * TABLE_1_SHARE * reference_lr,
        }
        real = {**published, "base_schedule": "constant"}
        rows += [
            Method(f"baseline{suffix}", "cosine", share),
            Method(f"as published{suffix}", "as_published", share, published),
            Method(f"real control{suffix}", "q_paper", share, real),
        ]
    return [
        *rows,
        Method("linear to zero", "linear", 1.0),
        Method("WSD", "wsd", 1.0),
        Method("controller, from 1/30 of the rate", "controller", 1 / 30),
        Method("controller, from 30 times the rate", "controller", 30.0),
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
    """Run one method on all seeds."""
    seeds = tuple(range(session.pick(SEEDS, 2)))
    reference_lr = preset("paper", "shakespeare").learning_rate
    return summary(
        Job(
            row.method,
            session.corpus.name,
            "test",
            seeds,
            learning_rates=(row.share * reference_lr,) * len(seeds),
            settings=job_settings(session, **row.settings),
        )
    )


def job_settings(session: Session, **more: Any) -> dict[str, Any]:
    """Return keywords of `gym.make` for a job; `more` overrides the session's."""
    settings = {"scale": "paper", **session.settings}
    return settings | {"compile": session.long_compile} | more


def summary(job: Job) -> dict[str, Any]:
    """Run a job; return losses by seed, their means and errors, and curves."""
    record = run_job(job)
    runs = record["runs"]
    result: dict[str, Any] = {
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
        result[metric] = {"by_seed": losses, **mean_and_error(losses)}
    return result


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and its standard error."""
    return {
        "mean": fmean(values),
        "standard_error": stdev(values) / len(values) ** 0.5,
    }
