"""Tables of clients that nobody here wrote: what runs, what stock learners reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.clients.learning_curves import KINDS, NAMES, curves
from benchmarks.clients.wrappers import SINGLE, VECTOR
from benchmarks.results_file import committed
from benchmarks.table_text import markdown


def compatibility() -> str:
    """Return what was run of each client, and whether it passed."""
    rows = []
    for name, client in committed("clients/compatibility.json").items():
        for title, check in client["checks"].items():
            seconds = check["seconds"]
            message = re.sub(r"([|_*`])", r"\\\1", check["message"])
            rows.append(
                {
                    "client": name,
                    "version": client["version"] or "none",
                    "run": title,
                    "outcome": check["outcome"] + (f": {message}" if message else ""),
                    "seconds": "none" if seconds is None else f"{seconds:.0f}",
                }
            )
    return markdown(rows)


def wrappers() -> str:
    """Return how many of Gymnasium's wrappers apply, and why the others do not."""
    rows = []
    for kind, table in (("single", SINGLE), ("vector", VECTOR)):
        reasons: dict[str, list[str]] = {}
        for name, wrapped in table.items():
            if isinstance(wrapped, str):
                reasons.setdefault(wrapped, []).append(f"`{name}`")
        for reason, names in reasons.items():
            rows.append(
                {
                    "environment": kind,
                    "wrapper that cannot apply": ", ".join(names),
                    "reason": reason,
                    "wrappers that apply": str(
                        sum(not isinstance(wrapped, str) for wrapped in table.values())
                    ),
                }
            )
    return markdown(rows)


def stock_learners() -> str:
    """Return the last returns of stock learners, and what they are compared with."""
    results = committed("clients/stock_learners.json")
    rows = []
    for kind, title in KINDS.items():
        rows += _reference_rows(title, results[f"{kind} references"])
        for result in curves(results, kind):
            runs = list(result["runs"].values())
            returns = [run["last_return"] for run in runs]
            observation = result["observation"]
            rows.append(
                {
                    "training": title,
                    "agent": NAMES[result["learner"]],
                    "observation": {"learning": "that learns"}.get(
                        observation, observation
                    ),
                    "decisions": f"{result['decisions']:,}",
                    "seeds": str(len(runs)),
                    "return, mean (range)": _mean_text(returns),
                    "CPU seconds per run": (
                        f"{mean(run['cpu_seconds'] for run in runs):.0f}"
                    ),
                }
            )
    return markdown(rows)


def _mean_text(returns: Sequence[float]) -> str:
    """Return the mean, and with several seeds the range."""
    text = f"{mean(returns):.3f}"
    if len(returns) == 1:
        return text
    return f"{text} ({min(returns):.3f} to {max(returns):.3f})"


def _reference_rows(title: str, references: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for each reference of a kind of training."""
    names = {
        "keep": "keep the learning rate",
        "best_constant": "best constant learning rate",
        "good_sequence": "good sequence, at most 4 times the initial rate",
        "any_sequence": "best sequence found on the simulator",
    }
    rows = []
    for key, name in names.items():
        if key in references:
            value = references[key]
            number = value["return"] if isinstance(value, dict) else value
            rows.append(
                {
                    "training": title,
                    "agent": name,
                    "observation": "none",
                    "decisions": "none",
                    "seeds": str(references.get("seeds", 20)),
                    "return, mean (range)": f"{number:.3f}",
                    "CPU seconds per run": "none",
                }
            )
    return rows
