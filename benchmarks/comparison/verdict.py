"""What a comparison settles, in words that its numbers support."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.comparison.summary import PAPER_BASELINE, Row
from benchmarks.estimates import Estimate
from benchmarks.table_text import estimate_text

PAPER_AGENT = "q_paper"
TOO_FEW = 8  # runs per task; with fewer a signed-rank test can hardly decide


def verdict(rows: Sequence[Row]) -> str:
    """Return one paragraph: who won, by how much, how sure, at what cost."""
    reference = next(row for row in rows if row.call == "reference")
    tasks = list(reference.test_loss)
    places = ", ".join(tasks[:-1]) + " and " * (len(tasks) > 1) + tasks[-1]
    text = (
        f"On {places}, {reference.runs} test runs per method, against "
        f"{reference.label} tuned with {reference.budget:.0f} trainings"
    )
    if reference.runs < TOO_FEW * len(tasks):
        return f"{text}: too few runs for a verdict; the table is a first look."
    agents = [row for row in rows if row.kind == "agent"]
    others = [row for row in rows if row.kind not in ("control", "placebo", "agent")]
    sentences = [f"{text}.", _winners("Of what learns no policy", others, reference)]
    if agents:
        sentences.append(_winners("Of the agents", agents, reference))
        best = agents[0]
        sentences.append(
            f"The best of them, {best.label}, has spent {best.budget:.0f} trainings, "
            f"is off by {_estimate(best.difference)}, and a run of it beats a run of "
            f"{reference.label} with probability {_estimate(best.improvement, '.2f')}."
        )
        sentences += _controls(rows, best)
    sentences += _paper(rows)
    return " ".join(sentences)


def _winners(who: str, rows: Sequence[Row], reference: Row) -> str:
    """Say who of `rows` is better than the reference, and how many are not."""
    compared = [row for row in rows if row is not reference]
    better = [row for row in compared if row.call == "better"]
    worse = sum(row.call == "worse" for row in compared)
    named = "; ".join(f"{row.label} {_estimate(row.difference)}" for row in better[:5])
    shown = f"better: {named}" if better else "shown to be better"
    left = len(compared) - len(better) - worse
    return (
        f"{who}, {len(better)} of {len(compared)} {_are(len(better))} {shown}, "
        f"{worse} {_are(worse)} worse, {left} {_are(left)} left open."
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _controls(rows: Sequence[Row], agent: Row) -> list[str]:
    """Say what the best agent's replays and the placebo show."""
    by_label = {row.label: row for row in rows}
    sentences = []
    replay = by_label.get(f"{agent.label} (open_loop)")
    if replay is not None:
        sentences.append(
            f"The mean learning-rate curve of {agent.label}, replayed without looking "
            f"at anything, is off by {_estimate(replay.difference)}."
        )
    placebo, cosine = by_label.get("as_published"), by_label.get(PAPER_BASELINE)
    if placebo is not None and cosine is not None:
        same = placebo.test_loss == cosine.test_loss
        sentences.append(
            "The agent as published, whose rate trains nothing, gives the numbers of "
            + ("cosine, digit for digit." if same else "another run: that is a fault.")
        )
    return sentences


def _paper(rows: Sequence[Row]) -> list[str]:
    """Answer the paper's question: its agent against its own baseline."""
    agent = next((row for row in rows if row.label == PAPER_AGENT), None)
    if agent is None or agent.versus_cosine is None:
        return []
    found = agent.versus_cosine
    if found.low is None or found.high is None or found.low <= 0.0 <= found.high:
        answer = "which leaves the paper's question open"
    else:
        answer = f"so its answer is {'no' if found.low > 0.0 else 'yes'}"
    return [
        "The paper asks whether its Q-agent trains better than its own baseline, the "
        "cosine schedule: with real control, and as many trainings to tune the initial "
        f"rate of either, it ends {_estimate(found)} from it, {answer}."
    ]


def _estimate(estimate: Estimate | None, form: str = "+.4f") -> str:
    """Return an estimate as text; the reference has none, of itself."""
    return "nothing" if estimate is None else estimate_text(estimate, form)
