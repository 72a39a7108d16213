"""The runs of `paper/tables.py` as numbers: means, differences, a noise floor, a check.

Losses are nats per character. Seeds are the same in every line, so that differences are
taken seed by seed.
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
JUDGED = ("best_val_loss", "test_loss")  # what differences are shown of
SPEED = "inference_tokens_per_second"
TIMES = ("train_seconds", SPEED)  # what two equal trainings may differ in
DOUBLED = "cosine at the doubled rate, minus cosine at the lower"
CURVES = ("iteration", "val_loss", "train_loss", "learning_rate", "optimizer_lr")

Run = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """What was run.

    Attributes:
        envs: The corpora asked for, in the order of the figures.
        scale: The preset.
        real_schedule: What multiplies the agent's rate under real control.
        records: Corpus to line to the job's record.
        missing: Corpus to why it is not there.
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
        found: Metric to mean difference with its interval.
        floor: Metric to the run-to-run sd of the baseline, `None` with one run.
        paper: The paper's own difference in best validation loss, where it has one.
    """

    env: str
    label: str
    found: Mapping[str, Estimate]
    floor: Mapping[str, float | None]
    paper: float | None

    def beyond(self, metric: str) -> bool | None:
        """Whether it exceeds chance, here: clear of zero, and larger than the floor."""
        estimate, floor = self.found[metric], self.floor[metric]
        if floor is None or estimate.low is None or estimate.high is None:
            return None
        clear = estimate.low > 0.0 or estimate.high < 0.0
        return clear and abs(estimate.value) > floor


def values(runs: Sequence[Run], metric: str) -> NDArray[np.float64]:
    """Return `metric` of every run, (runs,)."""
    return np.array([float(run["metrics"][metric]) for run in runs])


def standard_error(sample: NDArray[np.float64]) -> float | None:
    """Return std / sqrt(n), which one run does not have."""
    if len(sample) < 2:
        return None
    return float(np.std(sample, ddof=1) / np.sqrt(len(sample)))


def run_sd(sample: NDArray[np.float64]) -> float | None:
    """Return the standard deviation between runs, which one run does not have."""
    return float(np.std(sample, ddof=1)) if len(sample) > 1 else None


def published_faults(results: Results) -> list[str]:
    """Return where the agent as published differs from cosine in any number."""
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
    found = []
    for env, of_lines in results.runs.items():
        groups: list[list[Line]] = []
        for line in (ln for ln in of_lines if ln.kind == "real"):
            own = [_trained(run) for run in of_lines[line]]
            for group in groups:
                if own == [_trained(run) for run in of_lines[group[0]]]:
                    group.append(line)
                    break
            else:
                groups.append([line])
        found += [(env, group) for group in groups if len(group) > 1]
    return found


def _trained(run: Run) -> dict[str, Any]:
    """Return every number of a run that comes from training, none that is a time."""
    metrics = {k: v for k, v in run["metrics"].items() if k not in TIMES}
    curves = {name: run["curves"][name] for name in CURVES}
    return {"seed": run["seed"], "metrics": metrics, "curves": curves}


def differences(results: Results) -> list[Difference]:
    """Return real control minus cosine at the same rate, and the rate's own effect."""
    found = []
    for env, of_lines in results.runs.items():
        first, second = (of_lines[BASELINES[table]] for table in (1, 2))
        floors = {m: run_sd(values(first, m)) for m in JUDGED}
        for line, runs in of_lines.items():
            if line.kind == "real":
                baseline = of_lines[BASELINES[line.table]]
                # Only in Table 1 has the paper a baseline at the same rate.
                paper = paper_gap(line, env) if line.table == 1 else None
                gap = _gaps(runs, baseline)
                found.append(Difference(env, line.key, gap, floors, paper))
        doubled = next(line for line in LINES if line.name == "initial LR")
        found.append(
            Difference(
                env,
                DOUBLED,
                _gaps(second, first),
                floors,
                paper_gap(doubled, env),
            )
        )
    return found


def _gaps(runs: Sequence[Run], baseline: Sequence[Run]) -> dict[str, Estimate]:
    return {
        metric: estimates.bootstrap(
            [values(runs, metric) - values(baseline, metric)], np.mean
        )
        for metric in JUDGED
    }


def paper_gap(line: Line, env: str) -> float | None:
    """Return the paper's line minus its baseline, in best validation loss."""
    own, baseline = printed(line, env), printed(BASELINES[1], env)
    return own["best_val_loss"] - baseline["best_val_loss"] if own else None
