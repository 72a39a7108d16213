"""The numbers behind the figures: quality against budget, and bands of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

import numpy as np

from benchmarks.comparison.summary import Row, label_of, task_of
from benchmarks.estimates import FloatArray

WINDOW = 8  # training episodes that a learner's quality is averaged over


def expected_best(losses: Sequence[float]) -> list[float]:
    """Return the expected lowest of k losses drawn without replacement, for every k.

    The i-th of n sorted losses (from 0) is the lowest in C(n - 1 - i, k - 1) of the
    C(n, k) subsets of size k.
    """
    n = len(losses)
    ordered = sorted(losses)
    return [
        sum(x * comb(n - 1 - i, k - 1) for i, x in enumerate(ordered)) / comb(n, k)
        for k in range(1, n + 1)
    ]


def quality(
    row: Row, records: Sequence[Mapping[str, Any]], task: str
) -> tuple[list[float], list[float]]:
    """Return trainings spent, and the validation loss of `row` at that budget.

    For a tuned method it is the expected loss of the best of as many random peaks as
    the budget allows; for a search the lowest so far; for a learner the mean of the
    last `WINDOW` training episodes. Searches and learners are averaged over replicates.
    """
    of_task = [
        record
        for record in records
        if (label_of(record["job"]), task_of(record["job"])) == (row.label, task)
    ]
    tuning = [record for record in of_task if record["job"]["phase"] == "tune"]
    if tuning:
        by_rate: dict[float, list[float]] = {}
        for run in (run for record in tuning for run in record["runs"]):
            loss = run["metrics"]["final_val_loss"]
            by_rate.setdefault(run["learning_rate"], []).append(loss)
        cost = sum(record["trainings"] for record in tuning) / len(by_rate)
        best = expected_best([float(np.mean(losses)) for losses in by_rate.values()])
        return [cost * k for k in range(1, len(best) + 1)], best
    histories = [r["history"] for r in of_task if r["job"]["phase"] == "learn"]
    shortest = min(map(len, histories), default=0)
    if shortest == 0:
        return [], []
    losses = np.array([history[:shortest] for history in histories])
    if row.kind == "search":
        lines = np.minimum.accumulate(losses, axis=1)
    else:
        width = min(WINDOW, shortest)
        sums = np.lib.stride_tricks.sliding_window_view(losses, width, axis=1)
        lines = sums.mean(axis=-1)
    spent = range(shortest - lines.shape[1] + 1, shortest + 1)
    return list(map(float, spent)), lines.mean(axis=0).tolist()


def band(runs: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], FloatArray]:
    """Return iterations, and quartiles over runs of the column `key`, (3, steps).

    After a run has diverged, its last loss is repeated; its learning rate is left out.
    """
    longest = max((run["curves"]["iteration"] for run in runs), key=len)
    iterations = longest[len(longest) - max(len(r["curves"][key]) for r in runs) :]
    columns: list[list[float]] = [[] for _ in iterations]
    for run in runs:
        values = run["curves"][key]
        missing = len(iterations) - len(values) if key != "optimizer_lr" else 0
        whole = [*values, *values[-1:] * missing]
        for column, value in zip(columns, whole, strict=False):
            column.append(value)
    return iterations, np.array([np.quantile(c, (0.25, 0.5, 0.75)) for c in columns]).T
