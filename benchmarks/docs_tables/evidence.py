"""The table of all results: what made them, and whether they are of today's code."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.checks.registry import REGISTRY
from benchmarks.checks.states import Ledger, origin, state
from benchmarks.dependencies import Sources
from benchmarks.table_text import markdown


def results() -> str:
    """Return commit, machine and state of every committed result."""
    ledger, sources = Ledger(), Sources()
    rows = []
    for name, result in REGISTRY.items():
        made = origin(result)
        rows.append(
            {
                "result": f"`{name}`",
                "commit": _first(made.commits),
                "machine": ", ".join(made.machines) or "not recorded",
                "state": state(name, result, ledger, sources),
            }
        )
    return markdown(rows)


def _first(commits: Sequence[str]) -> str:
    """Return the first commit and the number of the others."""
    others = len(commits) - 1
    return f"{commits[0]} and {others} more" if others else commits[0]
