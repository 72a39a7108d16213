"""40 runs at paper scale, to fit a law of the loss curve.

The runs are from the plans of `surrogate/runs.py`, in populations of eight. The file
has no learning rates: the plan has them by the name and seed of a run. To fit a law:

    python -m benchmarks.speed.gpu.law FOLDER/law.json benchmarks/results/surrogate
    python -m benchmarks.surrogate.fitting --env shakespeare --scale paper --no-collect

The first command writes `shakespeare-paper-fit.npz` and `-held-out.npz`.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.gpu.checks import check_bound
from benchmarks.speed.gpu.session import Session, SubRun, read_part, rounded
from benchmarks.surrogate import runs as law_runs
from benchmarks.surrogate.runs import Plan
from lr_gym import TrainingConfig
from lr_gym.surrogate.runs import CURVES, RecordedRun, save_runs

SECONDS = 210.0  # per group
GROUP_SIZE = 8
# Of the 54 runs of the full plan: all schedules at four peaks, six random walks, the
# high peaks, both ramps, one cold start and one jump.
FITTING = (*range(22), *range(42, 51), 36)
HELD_OUT = (1, 3, 5, 7, 9, 11, 13, 15)  # a linear schedule and a walk at each peak
MAX_ROUNDING_ERROR = 1e-4  # relative; five digits lose less


def chosen_plans(config: TrainingConfig) -> dict[str, list[Plan]]:
    """Return the plans for fitting and the held-out plans."""
    fitting, held_out = law_runs.fitting_plan(config), law_runs.held_out_plan(config)
    return {
        "fit": [fitting[index] for index in FITTING],
        "held-out": [held_out[index] for index in HELD_OUT],
    }


def plan(session: Session) -> list[SubRun]:
    """Return the groups; the first groups suffice for a first law."""
    config = session.configure("paper", compile=session.long_compile)
    size = session.pick(GROUP_SIZE, 3)
    groups = []
    for kind, plans in chosen_plans(config).items():
        plans = session.pick(plans, plans[:size])
        for first in range(0, len(plans), size):
            name = f"{kind} {first // size}"
            call = partial(group, session, config, kind, plans[first : first + size])
            groups.append(SubRun(name, session.pick(SECONDS, 0.0), call))
    return groups


def headline(runs: Mapping[str, Any]) -> str:
    """Return the number of runs."""
    return f"{sum(len(run['recorded']) for run in runs.values())} runs"


def group(
    session: Session, config: TrainingConfig, kind: str, plans: list[Plan]
) -> dict[str, Any]:
    """Train a group as one population; check that its short form reads back."""
    runs = list(law_runs.collect(config, session.corpus, plans, size=len(plans)))
    result = {
        "kind": kind,
        "training": asdict(config),
        "iterations": runs[0].iterations.tolist(),
        "recorded": [shorten(run) for run in runs],
    }
    read = recorded_runs([result])[kind]
    worst = max(map(_relative_difference, runs, read))
    return {**result, **check_bound(worst, MAX_ROUNDING_ERROR)}


def shorten(run: RecordedRun) -> dict[str, Any]:
    """Return a run for JSON: its curves to five digits, a checksum of its LRs."""
    curves = {name: rounded(getattr(run, name)) for name in CURVES}
    checksum = _checksum(run.rates)
    return {"name": run.name, "seed": run.seed, "rates_crc32": checksum, **curves}


def recorded_runs(results: Sequence[Mapping[str, Any]]) -> dict[str, list[RecordedRun]]:
    """Return the runs of finished groups, by kind: ``fit`` and ``held-out``.

    Args:
        results: The values under ``runs`` in the part's file.

    Raises:
        ValueError: The plan of a run has changed since the run.
    """
    runs: dict[str, list[RecordedRun]] = {"fit": [], "held-out": []}
    for result in results:
        config = TrainingConfig(**result["training"])
        plans = {(p.name, p.seed): p for p in chosen_plans(config)[result["kind"]]}
        for row in result["recorded"]:
            planned = plans.get((row["name"], row["seed"]))
            if planned is None or _checksum(planned.rates) != row["rates_crc32"]:
                raise ValueError(
                    f"surrogate/runs.py has another plan for {row['name']!r} now"
                )
            curves: dict[str, Any] = {
                name: np.array(row[name], dtype=np.float64)  # null becomes NaN
                for name in CURVES
            }
            run = RecordedRun(
                name=row["name"],
                seed=row["seed"],
                rates=planned.rates,
                iterations=np.array(result["iterations"]),
                **curves,
            )
            runs[result["kind"]].append(run)
    return runs


def _checksum(rates: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.asarray(rates, dtype=np.float32).tobytes())


def _relative_difference(one: RecordedRun, other: RecordedRun) -> float:
    """Return the largest relative difference of two runs."""
    worst = 0.0
    for name in ("rates", "iterations", *CURVES):
        a, b = (np.asarray(getattr(run, name), dtype=float) for run in (one, other))
        if (np.isfinite(a) != np.isfinite(b)).any():
            return float("inf")
        finite = np.isfinite(a)
        scale = np.maximum(np.abs(a[finite]), 1e-30)
        worst = max(worst, float((np.abs(a - b)[finite] / scale).max(initial=0.0)))
    return worst


def write_npz(source: Path, folder: Path) -> None:
    """Write the runs of a part's file for `surrogate/fitting.py`."""
    for kind, runs in recorded_runs([*read_part(source)["runs"].values()]).items():
        save_runs(folder / f"shakespeare-paper-{kind}.npz", runs)


if __name__ == "__main__":
    write_npz(Path(sys.argv[1]), Path(sys.argv[2]))
