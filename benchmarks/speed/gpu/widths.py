"""Does the controller fit wide models? Short runs.

Each width trains with WSD at five peaks, and with the controller from a learning rate
30 times too low and one 30 times too high, two seeds each. For small models see
`benchmarks/controller/widths.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import fmean
from typing import Any

from benchmarks.comparison.jobs import Job
from benchmarks.speed.gpu.paper import job_settings, summary
from benchmarks.speed.gpu.session import Session, SubRun
from lr_gym import preset

# By width and method, on an H100.
SECONDS = {
    (384, "wsd"): 40.0,
    (384, "controller"): 35.0,
    (768, "wsd"): 100.0,
    (768, "controller"): 60.0,
    (1024, "wsd"): 160.0,
    (1024, "controller"): 85.0,
}
HEAD_WIDTH = 64  # of attention
SHORT_RUN = {"max_iters": 1_000, "eval_interval": 50, "batch_size": 32}
SEEDS = (0, 1)
LR_SHARES = {  # of the preset's LR: peaks, and initial LRs of the controller
    "wsd": (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0),
    "controller": (1 / 30, 30.0),
}


def plan(session: Session) -> list[SubRun]:
    """Return a sub-run per width and method."""
    small = {(16, "wsd"): 0.0, (16, "controller"): 0.0, (32, "wsd"): 0.0}
    table: dict[tuple[int, str], float] = session.pick(SECONDS, small)
    return [
        SubRun(f"{width} {method}", seconds, partial(width_run, session, width, method))
        for (width, method), seconds in table.items()
    ]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the best mean final loss by width and method."""
    return "; ".join(f"{k}: {min(run['final_by_rate']):.3f}" for k, run in runs.items())


def width_run(session: Session, width: int, method: str) -> dict[str, Any]:
    """Run one method at one width with all learning rates and seeds."""
    reference_lr = preset("paper", "shakespeare").learning_rate
    rates = [share * reference_lr for share in LR_SHARES[method] for _ in SEEDS]
    seeds = SEEDS * len(LR_SHARES[method])
    shape: dict[str, Any] = {
        "n_embd": width,
        "n_head": width // session.pick(HEAD_WIDTH, 8),
    }
    settings = job_settings(session, **shape, **session.pick(SHORT_RUN, {}))
    job = Job(
        method,
        session.corpus.name,
        "test",
        seeds,
        learning_rates=tuple(rates),
        settings=settings,
    )
    result = summary(job)
    final = result["final_val_loss"]["by_seed"]
    count = len(SEEDS)
    result["width"] = width
    result["rates"] = rates[::count]
    result["final_by_rate"] = [
        fmean(final[first : first + count]) for first in range(0, len(final), count)
    ]
    return result
