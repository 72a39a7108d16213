"""Rows as Markdown and as CSV: a row maps column names to cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it needs SciPy, tables do not
    from benchmarks.estimates import Estimate

NOTHING = "n/a"

Rows = Sequence[Mapping[str, Any]]


def markdown(rows: Rows) -> str:
    """Return `rows` as a Markdown table; a missing cell is `NOTHING`."""
    columns = columns_of(rows)
    lines = [columns, ["---"] * len(columns)]
    lines += [[str(row.get(name, NOTHING)) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def csv_text(rows: Rows) -> str:
    """Return `rows` as CSV; a missing cell is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def columns_of(rows: Rows) -> list[str]:
    """Return all column names, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def estimate_text(estimate: Estimate, form: str = "+.4f") -> str:
    """Return a value with its interval, if it has one, in the format `form`."""
    text = format(estimate.value, form)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({estimate.low:{form}} to {estimate.high:{form}})"


def spread_text(spread: dict[str, float], digits: int = 2) -> str:
    """Return a median with the minimum and the maximum of its sample."""
    median, low, high = (f"{spread[k]:.{digits}f}" for k in ("median", "min", "max"))
    return f"{median} ({low} to {high})"
