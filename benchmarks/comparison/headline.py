"""The result of a comparison in about ten lines, for the console and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.comparison.summary import PAPER_BASELINE, Row
from benchmarks.estimates import Estimate
from benchmarks.table_text import NOTHING, estimate_text

PAPER_AGENT = "q_paper"
NOT_COUNTED = ("control", "placebo")  # rows that are not methods
MIN_RUNS = 8  # per task: with fewer a signed-rank test rarely decides


def headline(rows: Sequence[Row]) -> dict[str, str]:
    """Return what the comparison found: quantity to value, as text.

    Differences are test losses in nats per character, with 95 % intervals; below 0 is
    better. A quantity is left out where its methods took no part.

    Args:
        rows: The summary, the lowest difference first.
    """
    reference = next(row for row in rows if row.call == "reference")
    runs = f"{reference.runs} per method"
    if reference.runs < MIN_RUNS * len(reference.test_loss):
        runs += f" (fewer than {MIN_RUNS} per task rarely decide)"
    lines = {
        "tasks": ", ".join(reference.test_loss),
        "test runs": runs,
        "reference": f"{reference.label}, tuned with {reference.budget:.0f} trainings",
    }
    for kind, calls in _calls(rows).items():
        counts = (str(calls[call]) for call in ("better", "worse", "open"))
        lines[f"{kind}: better / worse / open"] = " / ".join(counts)
    by_label = {row.label: row for row in rows}
    agent = next((row for row in rows if row.kind == "agent"), None)
    if agent is not None:
        name = f"best agent, {agent.label}"
        lines[f"{name}: difference"] = _text(agent.difference)
        probability = _text(agent.improvement, ".2f")
        lines[f"{name}: probability of beating the reference"] = probability
        replay = by_label.get(f"{agent.label} (open_loop)")
        if replay is not None:
            difference = _text(replay.difference)
            lines[f"{name}: difference of its mean schedule, replayed"] = difference
    placebo, cosine = by_label.get("as_published"), by_label.get(PAPER_BASELINE)
    if placebo is not None and cosine is not None:
        equal = placebo.test_loss == cosine.test_loss
        lines["placebo as_published equals cosine"] = "yes" if equal else "no"
    paper_agent = by_label.get(PAPER_AGENT)
    if paper_agent is not None and paper_agent.versus_cosine is not None:
        difference = _text(paper_agent.versus_cosine)
        lines["the paper's question, q_paper minus cosine"] = difference
    return lines


def _calls(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """Return how often each kind of method was called better, worse or open."""
    calls: dict[str, Counter[str]] = {}
    for row in rows:
        if row.kind not in NOT_COUNTED and row.call != "reference":
            calls.setdefault(row.kind, Counter())[row.call] += 1
    return dict(sorted(calls.items()))


def _text(estimate: Estimate | None, form: str = "+.4f") -> str:
    return NOTHING if estimate is None else estimate_text(estimate, form)
