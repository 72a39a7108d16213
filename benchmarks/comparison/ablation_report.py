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
FEW = 9  # runs below which nothing stands an adjustment for half a dozen variants

Records = Sequence[Mapping[str, Any]]


class Change(Protocol):
    """What a row says of its variant: see `ablations.Variant`."""

    @property
    def agent(self) -> str:
        """Whose default it is compared with."""

    @property
    def what(self) -> str:
        """The thing that is changed, or `DEFAULT`."""

    @property
    def value(self) -> str:
        """What it is changed to."""


class Asked(Protocol):
    """What the report says of the command: see `ablations.Args`."""

    env: tuple[str, ...]
    learners: int


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        agent: Whose ablation.
        what: The thing that is changed, or `DEFAULT`.
        value: What it is changed to.
        trainings: Most that a learner spent; 0 where the agent learns in the run that
            judges it.
        runs: Test runs.
        diverged: Of them.
        test_loss: Interquartile mean over all runs, nats per character.
        final_val_loss: Likewise.
        difference: Of test loss to the agent's default, seed by seed; `None` for it.
        p_value: Adjusted for the number of the agent's variants; `None` likewise.
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


def summarize(found: Iterable[tuple[Change, Records]]) -> list[Row]:
    """Return a row per variant, from its records; the default comes before others."""
    by_agent: dict[str, list[tuple[Change, Records]]] = {}
    for change, records in found:
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
    for own in runs.values():
        own.sort(key=lambda run: int(run["seed"]))
    return {
        task: np.array([float(run["metrics"][metric]) for run in own])
        for task, own in runs.items()
    }


def _middle(values: Scores) -> float:
    return float(estimates.iqm(np.concatenate(list(values.values()))))


def write_report(folder: Path, rows: Sequence[Row], asked: Asked) -> str:
    """Write ablations.md, .csv and .json; return the first."""
    source = provenance()
    text = _report(rows, asked, source)
    content = {"provenance": source, "rows": [asdict(row) for row in rows]}
    write_text(folder / "ablations.md", text)
    write_text(folder / "ablations.csv", csv_text([_flat(row) for row in rows]))
    write_text(folder / "ablations.json", json.dumps(content, indent=1) + "\n")
    return text


def _report(rows: Sequence[Row], asked: Asked, source: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with what has to be known to read it."""
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
    corpora = " and ".join(env_name(env) for env in asked.env)
    runs = min(row.runs for row in rows)
    few = (  # the least p of a signed-rank test: all signs equal, either way
        f" With {runs} runs no p-value can be below {2.0 ** (1 - runs):.3f}, even "
        "before it is adjusted: expect no call here, whatever the difference."
        if runs < FEW
        else ""
    )
    return (
        f"# Ablations on {corpora}\n\n`{source['command']}`, commit "
        f"{source['commit']}.\n\nTest loss is in nats per character, an interquartile "
        "mean; differences are taken seed by seed. Runs of one learner share what it "
        f"learned, so that with {asked.learners} learners the intervals are narrower "
        f"than they claim.{few}\n\n{markdown(cells)}\n"
    )


def _flat(row: Row) -> dict[str, Any]:
    """Return a row without single runs, its difference in three columns."""
    flat = {**vars(row)}
    del flat["test_losses"]
    difference = flat.pop("difference")
    for name in ("value", "low", "high"):
        flat[f"difference_{name}"] = getattr(difference, name, None)
    return flat
