"""Does the default controller's update size fit wide models? Shortened runs.

At each width: WSD at five peak rates, and the controller from a rate 30 times too low
and one 30 times too high. Two seeds each. `benchmarks/controller/widths.py` does it for
small models.
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

# By width and method.
SECONDS = {
    (384, "wsd"): 40.0,
    (384, "update_size"): 35.0,
    (768, "wsd"): 100.0,
    (768, "update_size"): 60.0,
    (1024, "wsd"): 160.0,
    (1024, "update_size"): 85.0,
}
HEAD = 64  # width of an attention head
SHORT = {"max_iters": 1_000, "eval_interval": 50, "batch_size": 32}
SEEDS = (0, 1)
SHARES = {  # of the preset's rate: peaks, and where the controller starts
    "wsd": (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0),
    "update_size": (1 / 30, 30.0),
}


def plan(session: Session) -> list[SubRun]:
    """Return a sub-run per width and method."""
    small = {(16, "wsd"): 0.0, (16, "update_size"): 0.0, (32, "wsd"): 0.0}
    table: dict[tuple[int, str], float] = session.pick(SECONDS, small)
    return [
        SubRun(f"{width} {method}", seconds, partial(width_run, session, width, method))
        for (width, method), seconds in table.items()
    ]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the best mean final loss by width and method."""
    return "; ".join(f"{k}: {min(run['final_by_rate']):.3f}" for k, run in runs.items())


def width_run(session: Session, width: int, method: str) -> dict[str, Any]:
    """Run one method at one width, all rates and seeds side by side."""
    good = preset("paper", "shakespeare").learning_rate
    rates = [share * good for share in SHARES[method] for _ in SEEDS]
    seeds = SEEDS * len(SHARES[method])
    own: dict[str, Any] = {"n_embd": width, "n_head": width // session.pick(HEAD, 8)}
    settings = job_settings(session, **own, **session.pick(SHORT, {}))
    job = Job(
        method,
        session.corpus.name,
        "test",
        seeds,
        learning_rates=tuple(rates),
        settings=settings,
    )
    found = summary(job)
    final = found["final_val_loss"]["by_seed"]
    count = len(SEEDS)
    found["width"] = width
    found["rates"] = rates[::count]
    found["final_by_rate"] = [
        fmean(final[first : first + count]) for first in range(0, len(final), count)
    ]
    return found
