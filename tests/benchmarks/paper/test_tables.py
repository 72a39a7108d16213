"""The paper's tables: its numbers next to ours, and its agent without effect."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.replay import Placebo
from benchmarks.comparison import executors
from benchmarks.comparison.protocol import Task
from benchmarks.estimates import Estimate
from benchmarks.paper.report import markdown_report
from benchmarks.paper.results import (
    BASELINES,
    Difference,
    Results,
    differences,
    identical_lines,
    published_faults,
    standard_error,
)
from benchmarks.paper.tables import Args, line_job, main
from benchmarks.paper.values import LINES, METRICS, PRINTED, printed
from lr_gym.data import corpora
from tests.helpers.small import SMALL

TASK = Task("markov", {"scale": "tiny", **SMALL})
RATE = SMALL["learning_rate"]


def small_args(out: Path, **overrides: Any) -> Args:
    given: dict[str, Any] = {
        "env": ("markov",),
        "scale": "tiny",
        "samples": 1,
        "workers": 1,
        "settings": json.dumps(SMALL),
        "out": out,
    }
    return Args(**(given | overrides))


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished reproduction."""
    return main(small_args(tmp_path_factory.mktemp("paper")))


@pytest.fixture(name="results", scope="module")
def fixture_results(folder: Path) -> Results:
    """Its records."""
    args = small_args(folder)
    records = {}
    for line in LINES:
        path = folder / "jobs" / line_job(line, TASK, args).file_name
        records[line] = json.loads(path.read_text(encoding="utf-8"))
    return Results(("markov",), "tiny", "constant", {"markov": records}, {})


@pytest.fixture(name="copy")
def fixture_copy(folder: Path, tmp_path: Path) -> Path:
    """A folder of a test's own in which all jobs are finished."""
    shutil.copytree(folder / "jobs", tmp_path / "copy" / "jobs")
    return tmp_path / "copy"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "tables.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_line_has_its_own_rate_reward_and_control() -> None:
    jobs = {line.key: line_job(line, TASK, Args()) for line in LINES}
    assert len({job.file_name for job in jobs.values()}) == len(LINES)
    for line in LINES:
        job = jobs[line.key]
        assert job.learning_rates == (RATE / 2 if line.table == 1 else RATE,) * 3
        assert job.settings.get("reward") == line.reward
        assert job.settings.get("base_schedule") == (
            "constant" if line.kind == "real" else None
        )
    on_top = line_job(LINES[1], TASK, Args(real_schedule="cosine"))
    assert on_top.settings["base_schedule"] == "cosine"
    # The released code's floor: a tenth of Table 1's peak, in both tables.
    for line in LINES:
        floor = jobs[line.key].settings.get("min_lr")
        assert floor == (None if line.reward is None else pytest.approx(RATE / 20))


def test_the_paper_printed_these_values() -> None:
    assert printed(LINES[0], "shakespeare") == {
        "final_train_loss": 0.8186,
        "best_val_loss": 1.4655,
        "train_seconds": 77.27,
    }
    for by_dataset in PRINTED.values():
        assert list(by_dataset) == ["shakespeare", "enwik8", "text8"]
        assert all(len(values) == len(METRICS) for values in by_dataset.values())
    assert printed(LINES[0], "markov") == {}


def test_the_tables_hold_means_and_standard_errors(
    folder: Path, results: Results
) -> None:
    rows = rows_of(folder)
    assert [row["line"] for row in rows] == [line.label for line in LINES]
    for row, line in zip(rows, LINES, strict=True):
        runs = results.runs["markov"][line]
        losses = np.array([run["metrics"]["best_val_loss"] for run in runs])
        assert float(row["best_val_loss"]) == pytest.approx(losses.mean())
        error = losses.std(ddof=1) / np.sqrt(3)
        assert float(row["best_val_loss_standard_error"]) == pytest.approx(error)
        assert row["best_val_loss_paper"] == ""
        assert float(row["inference_tokens_per_second"]) > 0
    text = (folder / "tables.md").read_text(encoding="utf-8")
    for heading in ("Table 1", "Table 2", "Noise floor", "Inference", "Figure 1."):
        assert heading in text
    picture = (folder / "figure-1.svg").read_text(encoding="utf-8")
    assert "validation loss, nats per character" in picture
    assert "Q-learning (as published)" in picture


def test_one_run_has_no_standard_error() -> None:
    assert standard_error(np.array([1.0])) is None


def test_as_published_equals_cosine_and_real_control_does_not(results: Results) -> None:
    assert published_faults(results) == []
    runs = results.runs["markov"]
    for line in LINES:
        same = [run["curves"]["val_loss"] for run in runs[line]] == [
            run["curves"]["val_loss"] for run in runs[BASELINES[line.table]]
        ]
        assert same == (line.kind != "real")
    assert "number for number, in all 4 pairs" in markdown_report(results)


def test_one_changed_digit_is_found(results: Results) -> None:
    records = json.loads(json.dumps(list(results.records["markov"].values())))
    published = next(n for n, ln in enumerate(LINES) if ln.kind == "published")
    records[published]["runs"][2]["curves"]["train_loss"][1] += 1e-12
    planted = replace(
        results, records={"markov": dict(zip(LINES, records, strict=True))}
    )
    assert published_faults(planted) == [f"markov, {LINES[published].key}"]


def test_an_agent_that_acts_as_published_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Placebo, "act", lambda *_: 2)
    monkeypatch.setattr(Placebo, "learn", lambda *_: None)
    with pytest.raises(SystemExit, match="changed the training") as raised:
        main(small_args(tmp_path, seeds=1))
    assert raised.value.code not in (None, 0)
    assert "FAULT" in (tmp_path / "tables.md").read_text(encoding="utf-8")


def test_differences_are_taken_seed_by_seed(results: Results) -> None:
    runs = results.runs["markov"]
    gap = differences(results)[0]
    line = next(line for line in LINES if line.key == gap.label)
    pairs = [
        own["metrics"]["test_loss"] - other["metrics"]["test_loss"]
        for own, other in zip(runs[line], runs[BASELINES[1]], strict=True)
    ]
    found = gap.estimates["test_loss"]
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.low is not None
    assert found.high is not None
    assert min(pairs) <= found.low <= found.high <= max(pairs)
    losses = [run["metrics"]["test_loss"] for run in runs[BASELINES[1]]]
    assert gap.floor["test_loss"] == pytest.approx(np.std(losses, ddof=1))


@pytest.mark.parametrize(
    ("estimate", "floor", "beyond"),
    [
        (Estimate(-0.02, -0.03, -0.01), 0.01, True),
        (Estimate(0.02, 0.01, 0.03), 0.01, True),
        (Estimate(-0.02, -0.03, -0.01), 0.05, False),
        (Estimate(-0.02, -0.05, 0.01), 0.01, False),
        (Estimate(-0.02, None, None), 0.01, None),
        (Estimate(-0.02, -0.03, -0.01), None, None),
    ],
)
def test_what_counts_as_beyond_chance(
    estimate: Estimate, floor: float | None, beyond: bool | None
) -> None:
    gap = Difference("markov", "x", {"test_loss": estimate}, {"test_loss": floor}, None)
    assert gap.beyond("test_loss") is beyond


def test_lines_that_take_the_same_course_are_named(results: Results) -> None:
    ((env, group),) = identical_lines(results)
    assert env == "markov"
    assert {line.name for line in group} >= {"reward signal", "epsilon decay"}


def test_the_same_command_runs_nothing_again(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "run_job", None)  # a call would fail
    main(small_args(copy))
    assert rows_of(copy) == rows_of(folder)


def test_a_missing_corpus_is_listed_unless_all_are(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(name: str) -> Path:
        raise FileNotFoundError(f"corpus {name!r} is not on this machine")

    monkeypatch.setattr(corpora, "find_published", nowhere)
    main(small_args(copy, env=("enwik8", "markov")))
    text = (copy / "tables.md").read_text(encoding="utf-8")
    assert "Missing: enwik8. corpus 'enwik8' is not on this machine" in text
    assert "| enwik8 | baseline | n/a | n/a | 0.9302 | n/a | 1.0055 |" in text
    assert "Figure 2. Validation and training loss on markov" in text
    assert (copy / "figure-2.svg").is_file()
    with pytest.raises(SystemExit, match="no corpus found"):
        main(small_args(copy, env=("enwik8", "text8")))


def test_half_a_corpus_is_a_missing_one(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text8").write_text("anarchism originated as a term of abuse " * 50)
    monkeypatch.setenv("LR_GYM_DATA", str(tmp_path))
    monkeypatch.delenv("LR_GYM_ALLOW_PARTIAL", raising=False)
    main(small_args(copy, env=("markov", "text8")))
    text = (copy / "tables.md").read_text(encoding="utf-8")
    assert "Missing: text8. only a part of text8 is present" in text


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    folder = main(small_args(tmp_path, seeds=1))
    text = (folder / "tables.md").read_text(encoding="utf-8")
    assert "| one run: open |" in text
    assert "| yes |" not in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"env": ("markov", "markov")}, "--env must name each once"),
        ({"env": ("marcov",)}, "did you mean 'markov'"),
        ({"settings": "{"}, "--settings must be JSON"),
        ({"settings": '{"reward": "final_loss"}'}, "must not hold reward"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main(small_args(tmp_path, **wrong))
