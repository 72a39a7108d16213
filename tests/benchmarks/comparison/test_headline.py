"""The headline holds the numbers of the summary."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.comparison.headline import headline
from benchmarks.comparison.summary import summarize
from tests.helpers.records import METHODS, small_comparison

QUESTION = "the paper's question, q_paper minus cosine"


def test_the_papers_question_is_answered_from_paired_runs() -> None:
    methods = ("linear", "cosine", "wsd", "constant", "q_paper")
    records = small_comparison(methods, seeds=range(10))
    losses = {
        record["job"]["method"]: [run["metrics"]["test_loss"] for run in record["runs"]]
        for record in records
        if record["job"]["phase"] in ("test", "learn")
    }
    rows = {row.label: row for row in summarize(records)}
    difference = rows["q_paper"].versus_cosine
    assert difference is not None
    pairs = np.subtract(losses["q_paper"], losses["cosine"])
    assert difference.value == pytest.approx(stats.trim_mean(pairs, 0.25))
    assert rows["cosine"].versus_cosine is None
    lines = headline(list(rows.values()))
    assert lines[QUESTION].startswith(f"{difference.value:+.4f} (")


def test_every_method_but_the_reference_is_counted_once() -> None:
    rows = summarize(small_comparison(METHODS, seeds=range(10)))
    lines = headline(rows)
    counts = {
        name.split(":")[0]: [int(count) for count in value.split(" / ")]
        for name, value in lines.items()
        if name.endswith("better / worse / open")
    }
    assert set(counts) == {"schedule", "rule", "optimizer", "search", "agent"}
    assert sum(map(sum, counts.values())) == len(METHODS) - 2  # and the placebo
    better = sum(row.call == "better" and row.kind == "agent" for row in rows)
    assert counts["agent"][0] == better
    best = next(row for row in rows if row.kind == "agent")
    assert best.difference is not None
    shown = lines[f"best agent, {best.label}: difference"]
    assert shown.startswith(f"{best.difference.value:+.4f}")
    assert lines["placebo as_published equals cosine"] in ("yes", "no")


def test_what_took_no_part_is_left_out() -> None:
    records = small_comparison(("linear", "q_paper"), seeds=range(3))
    lines = headline(summarize(records))
    assert QUESTION not in lines
    assert "placebo as_published equals cosine" not in lines
    assert lines["test runs"] == "3 per method (fewer than 8 per task rarely decide)"
