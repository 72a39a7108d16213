"""One self-contained HTML page: the headline, figures, tables, how to repeat it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from benchmarks.comparison import figures
from benchmarks.comparison.figures import line_styles
from benchmarks.comparison.headline import headline
from benchmarks.comparison.jobs import Job
from benchmarks.comparison.protocol import Protocol
from benchmarks.comparison.summary import (
    Row,
    label_of,
    methods_of,
    task_of,
    tested_runs,
    timings,
)
from benchmarks.estimates import Estimate
from benchmarks.table_text import estimate_text
from lr_gym.files import write_text

MISSING = "–"  # noqa: RUF001 - a dash
LOSSES = ("test_loss", "final_val_loss", "best_val_loss", "final_train_loss")
Record = Mapping[str, Any]


class Cell(NamedTuple):
    """A cell: its text and the value it is sorted by; `None` is sorted last."""

    text: str
    value: float | str | None = None
    note: str = ""
    mark: str = ""


class Table(NamedTuple):
    """Columns as (name, unit or task), and rows of as many cells."""

    columns: list[tuple[str, str]]
    rows: list[list[Cell]]
    sorted_by: int = -1


def write_report(
    path: Path,
    records: Sequence[Record],
    rows: Sequence[Row],
    protocol: Protocol,
    command: str,
) -> Path:
    """Write the page and return its path.

    Args:
        path: The file to write.
        records: All finished jobs.
        rows: Their summary, in its order.
        protocol: The protocol of the comparison.
        command: The command that repeats it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first = {task_of(record["job"]): record for record in reversed(records)}
    reference = next(row for row in rows if row.call == "reference")
    page = environment.get_template("report.html.j2").render(
        tasks={task: first[task] for task in reference.test_loss},
        reference=reference.label,
        headline=headline(rows),
        cards=_cards(rows, records),
        legend=line_styles(rows),
        pictures=_pictures(rows, records, list(reference.test_loss)),
        results=results_table(rows),
        spending=spending_table(rows, records),
        timings=timings_table(records),
        jobs=jobs_table(records),
        protocol=protocol,
        origins=_origins(records),
        command=command,
    )
    write_text(path, page)
    return path


def _pictures(
    rows: Sequence[Row], records: Sequence[Record], tasks: Sequence[str]
) -> dict[str, list[tuple[str, Markup]]]:
    """Return all figures by section, as (caption, SVG), one or more each."""
    runs = tested_runs(records)
    size = figures.WIDE if len(tasks) == 1 else figures.PANEL
    drawn: dict[str, list[tuple[str, str]]] = {
        "forest": [("", figures.forest(rows))],
        "profiles": [("", figures.profiles(rows, runs))],
        "curves": [],
        "budgets": [],
    }
    for task in tasks:
        losses, rates = (
            figures.losses(rows, runs, task),
            figures.rates(rows, runs, task),
        )
        drawn["curves"] += [(f"{task}: validation loss", losses)]
        drawn["curves"] += [(f"{task}: learning rate", rates)]
        drawn["budgets"] += [(task, figures.budgets(rows, records, task, size))]
    # The figures escape the names in them.
    return {
        name: [(caption, Markup(svg)) for caption, svg in panels]
        for name, panels in drawn.items()
    }


def _cards(rows: Sequence[Row], records: Sequence[Record]) -> list[dict[str, str]]:
    """Return the cards: the best method, its gap, the best agent, trainings spent."""
    reference = next(row.label for row in rows if row.call == "reference")
    methods = methods_of(rows)
    best = methods[0]
    cards = [{"title": "Lowest test loss", "value": best.label, "note": best.kind}]
    if best.label != reference:
        cards.append(_gap_card(f"Its gap to {reference}, nats", best))
    elif len(methods) > 1:
        cards.append(_gap_card(f"Next, {methods[1].label}, nats", methods[1]))
    agents = [row for row in methods if row.kind == "agent"]
    if agents:
        gap = agents[0].difference
        note = (
            "the reference"
            if gap is None
            else (f"{estimate_text(gap)} nats from {reference}: {agents[0].call}")
        )
        cards.append({"title": "Best agent", "value": agents[0].label, "note": note})
    spent = sum(int(record["trainings"]) for record in records)
    note = f"in {len(records)} jobs, for {len(methods)} methods"
    cards.append({"title": "Trainings run", "value": f"{spent:,}", "note": note})
    return cards


def _gap_card(title: str, row: Row) -> dict[str, str]:
    gap = row.difference or Estimate(0.0, None, None)
    note = "one run: no interval"
    if gap.low is not None and gap.high is not None:
        note = f"95 % interval {gap.low:+.4f} to {gap.high:+.4f}: {row.call}"
        note += f", adjusted p {row.p_value:.2g}"
    return {"title": title, "value": f"{gap.value:+.4f}", "note": note}


def results_table(rows: Sequence[Row]) -> Table:
    """Return the summary as a table."""
    tasks = list(dict.fromkeys(task for row in rows for task in row.test_loss))
    columns = [
        ("method", ""),
        ("difference", "nats"),
        ("call", ""),
        ("kind", ""),
        ("chance to beat it", ""),
        ("p, adjusted", ""),
        *((name.replace("_", " "), task) for name in LOSSES for task in tasks),
        *(("iterations to its loss", task) for task in tasks),
        ("runs", ""),
        ("diverged", ""),
    ]
    lines = []
    for row in rows:
        zero = Cell(MISSING, 0.0)
        lines.append(
            [
                Cell(row.label, row.label),
                _estimate(row.difference, "+.4f") if row.difference else zero,
                Cell(row.call, row.call, mark=row.call),
                Cell(row.kind, row.kind),
                _estimate(row.improvement, ".2f"),
                _number(row.p_value, ".2g"),
                *(
                    _number(getattr(row, name).get(task), ".4f")
                    for name in LOSSES
                    for task in tasks
                ),
                *(_number(row.steps_to_target.get(task), ",") for task in tasks),
                _number(row.runs, ","),
                _number(row.diverged, ".0%"),
            ]
        )
    return Table(columns, lines, sorted_by=1)


def spending_table(rows: Sequence[Row], records: Sequence[Record]) -> Table:
    """Return the trainings that each method spent, and its tuned rates."""
    tasks = list(dict.fromkeys(task for row in rows for task in row.tuned))
    columns = [
        ("method", ""),
        ("kind", ""),
        *(("tuned rate", task) for task in tasks),
        ("budget", "trainings per task"),
        ("per run", "trainings"),
        ("all", "trainings"),
    ]
    spent: dict[str, int] = {}
    for record in records:
        label = label_of(record["job"])
        spent[label] = spent.get(label, 0) + int(record["trainings"])
    lines = [
        [
            Cell(row.label, row.label),
            Cell(row.kind, row.kind),
            *(_number(row.tuned.get(task), ".3g") for task in tasks),
            _number(row.budget, ",.0f"),
            _number(row.run_cost, ","),
            _number(spent.get(row.label), ","),
        ]
        for row in rows
    ]
    return Table(columns, lines)


def timings_table(records: Sequence[Record]) -> Table:
    """Return seconds per training and generated characters per second, by task."""
    measured = timings(records)
    tasks = list(dict.fromkeys(line["task"] for line in measured))
    names = ("train_seconds", "inference_tokens_per_second")
    columns = [("method", "")]
    columns += [("seconds per run", task) for task in tasks]
    columns += [("characters per second, generated", task) for task in tasks]
    by_label: dict[str, dict[str, dict[str, Any]]] = {}
    for line in measured:
        by_label.setdefault(line["label"], {})[line["task"]] = line
    lines = [
        [
            Cell(label, label),
            *(_number(by_task.get(task, {}).get(names[0]), ",.2f") for task in tasks),
            *(_number(by_task.get(task, {}).get(names[1]), ",.0f") for task in tasks),
        ]
        for label, by_task in by_label.items()
    ]
    return Table(columns, lines)


def jobs_table(records: Sequence[Record]) -> Table:
    """Return every job's file, its SHA-256 as `sha256sum` gives it, and seconds."""
    columns = [("file", ""), ("SHA-256", ""), ("runs", ""), ("seconds", "")]
    lines = []
    for record in records:
        name = Job(**record["job"]).file_name
        content = json.dumps(record, allow_nan=False) + "\n"
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        seconds = record.get("seconds")
        cells = [Cell(name, name), Cell(digest, digest)]
        cells += [_number(len(record["runs"]), ","), _number(seconds, ",.1f")]
        lines.append(cells)
    return Table(columns, sorted(lines))


def _origins(records: Sequence[Record]) -> list[dict[str, str]]:
    """Return the distinct commits and machines of the records."""
    origins = []
    for record in records:
        source = record["provenance"]
        versions, hardware = source["versions"], source["hardware"]
        packages = [f"{name} {v}" for name, v in versions.items() if v is not None]
        origin = {
            "commit": source["commit"] or "unknown",
            "code": source.get("code") or "not recorded",
            "versions": ", ".join([f"Python {source['python']}", *packages]),
            "hardware": f"{hardware['machine']} {hardware['cpu_capability']}, "
            f"{hardware['cores']} cores, {hardware['gpu'] or 'no GPU'}",
            "arithmetic": f"{record['precision']} on {record['device']}",
        }
        if origin not in origins:
            origins.append(origin)
    return origins


def _estimate(estimate: Estimate | None, digits: str) -> Cell:
    if estimate is None:
        return Cell(MISSING)
    note = ""
    if estimate.low is not None and estimate.high is not None:
        note = f"{estimate.low:{digits}} to {estimate.high:{digits}}"
    return Cell(f"{estimate.value:{digits}}", estimate.value, note)


def _number(value: float | None, digits: str) -> Cell:
    return Cell(MISSING) if value is None else Cell(f"{value:{digits}}", value)
