"""The records of `ablations.py` as one table: each variant against its default."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import estimates
from benchmarks.comparison.jobs import env_name
from benchmarks.comparison.summary import task_of
from benchmarks.estimates import Estimate, Scores
from benchmarks.provenance import provenance
from benchmarks.table_text import NOTHING, csv_text, estimate_text, markdown
from lr_gym.files import write_text

DEFAULT = "default"
MIN_RUNS = 9  # with fewer, no p-value is small enough after the adjustment

Records = Sequence[Mapping[str, Any]]


class Change(Protocol):
    """The change of a variant: see `ablations.Variant`."""

    @property
    def agent(self) -> str:
        """The agent; the variant is compared with its default."""

    @property
    def what(self) -> str:
        """What is changed, or `DEFAULT`."""

    @property
    def value(self) -> str:
        """The new value."""


class Options(Protocol):
    """The options that the report prints: see `ablations.Args`."""

    env: tuple[str, ...]
    learners: int


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        agent: The agent.
        what: What is changed, or `DEFAULT`.
        value: The new value.
        trainings: Trainings that a learner spent at most; 0 if the agent learns only
            during the test run.
        runs: Test runs.
        diverged: Number of test runs that diverged.
        test_loss: Interquartile mean over all runs, nats per character.
        final_val_loss: Interquartile mean over all runs, nats per character.
        difference: Test loss minus the default's, seed by seed; `None` for the default.
        p_value: Adjusted for the number of the agent's variants; `None` for the
            default.
        call: ``better``, ``worse``, ``open``, or `DEFAULT`.
        test_losses: Task to the losses of its runs, in the order of their seeds.
    """

    agent: str
    what: str
    value: str
    trainings: int
    runs: int
    diverged: int
    test_loss: float
    final_val_loss: float
    difference: Estimate | None
    p_value: float | None
    call: str
    test_losses: dict[str, list[float]]


def summarize(variants: Iterable[tuple[Change, Records]]) -> list[Row]:
    """Return a row per variant and its records; an agent's default comes first."""
    by_agent: dict[str, list[tuple[Change, Records]]] = {}
    for change, records in variants:
        by_agent.setdefault(change.agent, []).append((change, records))
    return [row for pairs in by_agent.values() for row in _agent_rows(pairs)]


def _agent_rows(pairs: Sequence[tuple[Change, Records]]) -> list[Row]:
    default, *changed = pairs
    reference = scores(default[1], "test_loss")
    gaps = [
        estimates.differences(scores(records, "test_loss"), reference)
        for _, records in changed
    ]
    p_values = {str(n): estimates.paired_p(gap) for n, gap in enumerate(gaps)}
    adjusted = estimates.adjusted(p_values)
    rows = [_row(*default, None, None)]
    rows += [
        _row(*pair, estimates.pooled_iqm(gap), adjusted[str(n)])
        for n, (pair, gap) in enumerate(zip(changed, gaps, strict=True))
    ]
    return rows


def _row(
    change: Change,
    records: Records,
    difference: Estimate | None,
    p_value: float | None,
) -> Row:
    runs = [run for record in records for run in record["runs"]]
    losses = scores(records, "test_loss")
    call = DEFAULT
    if difference is not None and p_value is not None:
        call = estimates.call(difference, p_value)
    return Row(
        agent=change.agent,
        what=change.what,
        value=change.value,
        trainings=max(record["spent_learning"] for record in records),
        runs=len(runs),
        diverged=sum(bool(run["metrics"]["diverged"]) for run in runs),
        test_loss=_middle(losses),
        final_val_loss=_middle(scores(records, "final_val_loss")),
        difference=difference,
        p_value=p_value,
        call=call,
        test_losses={task: values.tolist() for task, values in losses.items()},
    )


def scores(records: Records, metric: str) -> Scores:
    """Return `metric` by task, in the order of the seeds."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        runs.setdefault(task_of(record["job"]), []).extend(record["runs"])
    for task_runs in runs.values():
        task_runs.sort(key=lambda run: int(run["seed"]))
    return {
        task: np.array([float(run["metrics"][metric]) for run in task_runs])
        for task, task_runs in runs.items()
    }


def _middle(values: Scores) -> float:
    return float(estimates.iqm(np.concatenate(list(values.values()))))


def write_report(folder: Path, rows: Sequence[Row], options: Options) -> str:
    """Write ablations.md, .csv and .json; return the Markdown."""
    source = provenance()
    text = _report(rows, options, source)
    content = {"provenance": source, "rows": [asdict(row) for row in rows]}
    write_text(folder / "ablations.md", text)
    write_text(folder / "ablations.csv", csv_text([_flat(row) for row in rows]))
    write_text(folder / "ablations.json", json.dumps(content, indent=1) + "\n")
    return text


def _report(rows: Sequence[Row], options: Options, source: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with notes for its reader."""
    cells = [
        {
            "agent": row.agent,
            "changed": row.what,
            "to": row.value or NOTHING,
            "test loss": f"{row.test_loss:.4f}",
            "minus default (95 % interval)": (
                NOTHING if row.difference is None else estimate_text(row.difference)
            ),
            "p, adjusted": NOTHING if row.p_value is None else f"{row.p_value:.3f}",
            "call": row.call,
            "trainings per learner": row.trainings,
            "diverged": f"{row.diverged} of {row.runs}",
        }
        for row in rows
    ]
    corpora = " and ".join(env_name(env) for env in options.env)
    runs = min(row.runs for row in rows)
    few = (  # the smallest p of a two-sided signed-rank test: all signs equal
        f" With {runs} runs every unadjusted p-value is at least "
        f"{2.0 ** (1 - runs):.3f}, so all calls are open."
        if runs < MIN_RUNS
        else ""
    )
    return (
        f"# Ablations on {corpora}\n\n`{source['command']}`, commit "
        f"{source['commit']}.\n\nTest loss is in nats per character, an interquartile "
        "mean; differences are taken seed by seed. The runs of one learner depend on "
        f"each other: with {options.learners} learners the intervals are too "
        f"narrow.{few}\n\n{markdown(cells)}\n"
    )


def _flat(row: Row) -> dict[str, Any]:
    """Return a row without its runs' losses, its difference in three columns."""
    flat = {**vars(row)}
    del flat["test_losses"]
    difference = flat.pop("difference")
    for name in ("value", "low", "high"):
        flat[f"difference_{name}"] = getattr(difference, name, None)
    return flat
