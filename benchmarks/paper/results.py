"""Statistics of the runs of `paper/tables.py`: means, differences, noise floor.

Losses are nats per character. All lines use the same seeds, so differences are taken
seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import estimates
from benchmarks.estimates import Estimate
from benchmarks.paper.values import LINES, Line, printed

BASELINES = {line.table: line for line in LINES if line.kind == "schedule"}
COMPARED = ("best_val_loss", "test_loss")  # the metrics of differences
SPEED = "inference_tokens_per_second"
TIMES = ("train_seconds", SPEED)  # equal trainings can differ in these
DOUBLED = "cosine at the doubled rate, minus cosine at the lower"
CURVES = ("iteration", "val_loss", "train_loss", "learning_rate", "optimizer_lr")

Run = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The finished runs of all lines.

    Attributes:
        envs: The corpora asked for, in the order of the figures.
        scale: The preset.
        real_schedule: The base schedule of the lines under real control.
        records: Corpus to line to the job's record.
        missing: Corpus to the reason why it is absent.
    """

    envs: tuple[str, ...]
    scale: str
    real_schedule: str
    records: Mapping[str, Mapping[Line, Mapping[str, Any]]]
    missing: Mapping[str, str]

    @cached_property
    def runs(self) -> dict[str, dict[Line, list[Run]]]:
        """The runs by corpus and line, in the order of their seeds."""
        return {
            env: {line: list(record["runs"]) for line, record in of_lines.items()}
            for env, of_lines in self.records.items()
        }


@dataclass(frozen=True)
class Difference:
    """One line minus another, seed by seed.

    Attributes:
        env: The corpus.
        label: The line from which cosine at the same rate is taken, or `DOUBLED`.
        estimates: Metric to mean difference with its interval.
        floor: Metric to the run-to-run sd of the baseline, `None` with one run.
        paper: The paper's difference in best validation loss, or `None`.
    """

    env: str
    label: str
    estimates: Mapping[str, Estimate]
    floor: Mapping[str, float | None]
    paper: float | None

    def beyond(self, metric: str) -> bool | None:
        """Whether the interval excludes zero and the difference exceeds the floor."""
        estimate, floor = self.estimates[metric], self.floor[metric]
        if floor is None or estimate.low is None or estimate.high is None:
            return None
        clear = estimate.low > 0.0 or estimate.high < 0.0
        return clear and abs(estimate.value) > floor


def values(runs: Sequence[Run], metric: str) -> NDArray[np.float64]:
    """Return `metric` of every run, (runs,)."""
    return np.array([float(run["metrics"][metric]) for run in runs])


def standard_error(sample: NDArray[np.float64]) -> float | None:
    """Return std / sqrt(n); `None` with one run."""
    if len(sample) < 2:
        return None
    return float(np.std(sample, ddof=1) / np.sqrt(len(sample)))


def run_sd(sample: NDArray[np.float64]) -> float | None:
    """Return the standard deviation between runs; `None` with one run."""
    return float(np.std(sample, ddof=1)) if len(sample) > 1 else None


def published_faults(results: Results) -> list[str]:
    """Return the lines as published that differ from cosine in any number."""
    faults = []
    for env, of_lines in results.runs.items():
        for line, runs in of_lines.items():
            if line.kind == "published":
                cosine = of_lines[BASELINES[line.table]]
                if [_trained(run) for run in runs] != [_trained(run) for run in cosine]:
                    faults.append(f"{env}, {line.key}")
    return faults


def identical_lines(results: Results) -> list[tuple[str, list[Line]]]:
    """Return, by corpus, the lines under real control that trained identically."""
    identical = []
    for env, of_lines in results.runs.items():
        groups: list[list[Line]] = []
        for line in (ln for ln in of_lines if ln.kind == "real"):
            trained = [_trained(run) for run in of_lines[line]]
            for group in groups:
                if trained == [_trained(run) for run in of_lines[group[0]]]:
                    group.append(line)
                    break
            else:
                groups.append([line])
        identical += [(env, group) for group in groups if len(group) > 1]
    return identical


def _trained(run: Run) -> dict[str, Any]:
    """Return all numbers of a run except its times."""
    metrics = {k: v for k, v in run["metrics"].items() if k not in TIMES}
    curves = {name: run["curves"][name] for name in CURVES}
    return {"seed": run["seed"], "metrics": metrics, "curves": curves}


def differences(results: Results) -> list[Difference]:
    """Return real control minus cosine at the same rate, and the effect of the rate."""
    gaps = []
    for env, of_lines in results.runs.items():
        first, second = (of_lines[BASELINES[table]] for table in (1, 2))
        floors = {m: run_sd(values(first, m)) for m in COMPARED}
        for line, runs in of_lines.items():
            if line.kind == "real":
                baseline = of_lines[BASELINES[line.table]]
                # The paper has a baseline at the same rate only in Table 1.
                paper = paper_gap(line, env) if line.table == 1 else None
                gap = _gaps(runs, baseline)
                gaps.append(Difference(env, line.key, gap, floors, paper))
        doubled = next(line for line in LINES if line.name == "initial LR")
        gaps.append(
            Difference(
                env,
                DOUBLED,
                _gaps(second, first),
                floors,
                paper_gap(doubled, env),
            )
        )
    return gaps


def _gaps(runs: Sequence[Run], baseline: Sequence[Run]) -> dict[str, Estimate]:
    return {
        metric: estimates.bootstrap(
            [values(runs, metric) - values(baseline, metric)], np.mean
        )
        for metric in COMPARED
    }


def paper_gap(line: Line, env: str) -> float | None:
    """Return the paper's line minus its baseline, in best validation loss."""
    values, baseline = printed(line, env), printed(BASELINES[1], env)
    return values["best_val_loss"] - baseline["best_val_loss"] if values else None
