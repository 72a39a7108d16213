"""The verdict says what the numbers say, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.comparison.summary import summarize
from benchmarks.comparison.verdict import verdict
from tests.helpers.records import small_comparison

NO = ("linear", "cosine", "wsd", "constant", "q_paper")
YES = ("linear", "q_paper", "wsd", "constant", "cosine")


@pytest.mark.parametrize(("methods", "answer"), [(NO, "no"), (YES, "yes")])
def test_the_papers_question_is_answered_from_paired_runs(
    methods: tuple[str, ...], answer: str
) -> None:
    records = small_comparison(methods, seeds=range(10))
    losses = {
        record["job"]["method"]: [run["metrics"]["test_loss"] for run in record["runs"]]
        for record in records
        if record["job"]["phase"] in ("test", "learn")
    }
    rows = {row.label: row for row in summarize(records)}
    found = rows["q_paper"].versus_cosine
    assert found is not None
    pairs = np.subtract(losses["q_paper"], losses["cosine"])
    assert found.value == pytest.approx(stats.trim_mean(pairs, 0.25))
    assert rows["cosine"].versus_cosine is None
    text = verdict(list(rows.values()))
    assert f"it ends {found.value:+.4f}" in text
    assert text.endswith(f"so its answer is {answer}.")


def test_equal_runs_leave_the_question_open() -> None:
    records = small_comparison(("linear", "cosine", "q_paper"), seeds=range(10))
    cosine = next(
        record["runs"]
        for record in records
        if (record["job"]["method"], record["job"]["phase"]) == ("cosine", "test")
    )
    for record in records:
        if record["job"]["method"] == "q_paper":
            record["runs"] = cosine
    text = verdict(summarize(records))
    assert text.endswith("which leaves the paper's question open.")


def test_without_its_baseline_the_question_is_not_asked() -> None:
    records = small_comparison(("linear", "q_paper"), seeds=range(10))
    assert "The paper asks" not in verdict(summarize(records))
