"""What a comparison settles, in words that its numbers support."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.statistics import Estimate
from benchmarks.summary import PAPER_BASELINE, Row

TOO_FEW = 5  # runs per task below which no verdict is given


def verdict(rows: Sequence[Row]) -> str:
    """Return one paragraph: who won, by how much, how sure, at what cost."""
    reference = next(row for row in rows if row.call == "reference")
    tasks = list(reference.test_loss)
    text = (
        f"On {' and '.join(tasks)}, {reference.runs} test runs per method, against "
        f"{reference.label} tuned with {reference.budget:.0f} trainings"
    )
    agents = [row for row in rows if row.kind == "agent"]
    schedules = [row for row in rows if row.kind == "schedule"]
    others = [row for row in rows if row.kind not in ("control", "placebo")]
    if reference.runs < TOO_FEW * len(tasks):
        return f"{text}: too few runs for a verdict; the table is a first look."
    sentences = [f"{text}:"]
    if agents:
        sentences.append(_agents(agents, reference))
        sentences += _controls(rows, agents[0])
    better = [row for row in others if row.call == "better"]
    if better:
        named = ", ".join(f"{row.label} ({_gap(row.difference)})" for row in better[:5])
        sentences.append(f"Better than {reference.label}: {named}.")
    else:
        sentences.append(f"Nothing is shown to be better than {reference.label}.")
    best = min(schedules, key=_value, default=None)
    if best is not None and best is not reference:
        sentences.append(f"The best fixed schedule is {best.label}.")
    return " ".join(sentences)


def _agents(agents: Sequence[Row], reference: Row) -> str:
    """Say how the agents did, the best and the rest."""
    best = agents[0]
    counts = {c: sum(row.call == c for row in agents) for c in ("better", "worse")}
    ties = len(agents) - counts["better"] - counts["worse"]
    spent = f"{best.budget:.0f} trainings"
    return (
        f"Of {len(agents)} agents {counts['better']} are better, {ties} not told "
        f"apart, {counts['worse']} worse. The best, {best.label}, after {spent}, is "
        f"{_gap(best.difference)} nats from it, and a run of it beats a run of "
        f"{reference.label} with probability {_chance(best.improvement)}."
    )


def _controls(rows: Sequence[Row], agent: Row) -> list[str]:
    """Say what the best agent's replays and the placebo show."""
    by_label = {row.label: row for row in rows}
    sentences = []
    replay = by_label.get(f"{agent.label} (open_loop)")
    if replay is not None:
        sentences.append(
            f"The mean learning-rate curve of {agent.label}, replayed without looking "
            f"at anything, is {_gap(replay.difference)} from {_reference(rows)}."
        )
    placebo, cosine = by_label.get("as_published"), by_label.get(PAPER_BASELINE)
    if placebo is not None and cosine is not None:
        same = placebo.test_loss == cosine.test_loss
        sentences.append(
            "The agent as published, whose rate trains nothing, gives the numbers of "
            + ("cosine, digit for digit." if same else "another run: that is a fault.")
        )
    return sentences


def _reference(rows: Sequence[Row]) -> str:
    return next(row.label for row in rows if row.call == "reference")


def _value(row: Row) -> float:
    return row.difference.value if row.difference else 0.0


def _gap(estimate: Estimate | None) -> str:
    if estimate is None:
        return "0"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.4f}"
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def _chance(estimate: Estimate | None) -> str:
    if estimate is None:
        return "0.5"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
