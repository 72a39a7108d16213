"""The comparison: resumable, honest about failure, and a report that stands alone."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import compare_agents
from benchmarks.compare_agents import Args, main, plan
from benchmarks.report import METRICS, interval, summarize, verdict
from benchmarks.runs import Job, load_run, make_agent, run_job
from lr_gym import PopulationTrainer, load_corpus, schedule_factor
from tests.small import SMALL, small_config

SETTINGS = json.dumps(SMALL)


def small_args(out: Path, **overrides: Any) -> Args:
    given: dict[str, Any] = {
        "agents": ("constant", "wsd", "q_paper"),
        "seeds": 2,
        "settings": SETTINGS,
        "out": out,
    }
    return Args(**(given | overrides))


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished comparison."""
    out = tmp_path_factory.mktemp("comparison")
    main(small_args(out))
    return out


def test_a_comparison_leaves_runs_a_table_and_a_report(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "runs").iterdir())
    expected = [
        f"{a}-seed{s}.json" for a in ("constant", "q_paper", "wsd") for s in (0, 1)
    ]
    assert names == expected
    with (folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["agent"] for row in rows} == {"constant", "wsd", "q_paper"}
    losses = [float(row["final_val_loss"]) for row in rows]
    assert losses == sorted(losses)


def test_the_report_is_self_contained_and_shows_every_agent(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r"(?:src|href)=[\"']https?:", page)
    assert page.count("<svg") == 3
    for part in ("constant", "wsd", "q_paper", "versus constant", "python benchmarks/"):
        assert part in page


def test_a_record_says_how_to_repeat_it(folder: Path) -> None:
    record = json.loads((folder / "runs" / "wsd-seed1.json").read_text())
    assert record["job"]["seed"] == 1
    assert record["training"]["n_embd"] == SMALL["n_embd"]
    assert record["mdp"]["base_schedule"] == "wsd"
    assert record["corpus"]["corpus_complete"] is True
    assert record["precision"] == "float32"
    assert record["provenance"]["versions"]["torch"]
    assert len(record["trajectory"]) == 5
    assert record["metrics"]["final_val_loss"] == record["trajectory"][-1]["val_loss"]
    assert record["metrics"]["inference_tokens_per_second"] > 0


def test_always_keep_equals_training_without_the_environment(folder: Path) -> None:
    for agent, schedule in (("constant", "constant"), ("wsd", "wsd")):
        record = json.loads((folder / "runs" / f"{agent}-seed1.json").read_text())
        trainer = PopulationTrainer(small_config(), load_corpus("markov"))
        trainer.reset([0], [1])
        losses = [float(trainer.evaluate()[0])]
        factors = schedule_factor(schedule, np.arange(8), 8, 0)
        for start in range(0, 8, 2):
            trainer.train(2, 1e-3 * factors[None, start : start + 2])
            losses.append(float(trainer.evaluate()[0]))
        assert [step["val_loss"] for step in record["trajectory"]] == losses


def test_a_second_start_repeats_no_finished_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = folder / "runs" / "wsd-seed0.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    ran: list[Job] = []

    def spy(job: Job, *rest: Any) -> dict[str, Any]:
        ran.append(job)
        return run_job(job, *rest)

    monkeypatch.setattr(compare_agents, "run_job", spy)
    main(small_args(folder))
    assert [(job.agent, job.seed) for job in ran] == [("wsd", 0)]
    assert json.loads(lost.read_text())["trajectory"] == before["trajectory"]


def test_an_interruption_keeps_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = 0

    def interrupted(job: Job, *rest: Any) -> dict[str, Any]:
        nonlocal finished
        if finished == 2:
            raise KeyboardInterrupt
        finished += 1
        return run_job(job, *rest)

    monkeypatch.setattr(compare_agents, "run_job", interrupted)
    with pytest.raises(SystemExit, match=r"interrupted: .* the same command goes on"):
        main(small_args(tmp_path))
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2
    monkeypatch.undo()
    main(small_args(tmp_path))
    assert len(list((tmp_path / "runs").glob("*.json"))) == 6


def test_runs_of_other_settings_are_never_mixed_in(folder: Path) -> None:
    other = json.dumps(SMALL | {"learning_rate": 2e-3})
    with pytest.raises(SystemExit, match=r"other settings .* choose another --out"):
        main(small_args(folder, settings=other))


def test_a_damaged_run_is_reported(folder: Path) -> None:
    path = folder / "runs" / "wsd-seed0.json"
    whole = path.read_text()
    job = plan(small_args(folder))[1]
    assert job.file_name == path.name
    try:
        path.write_text(whole[:100])
        with pytest.raises(ValueError, match=r"not a whole run .* delete it"):
            load_run(path, job)
    finally:
        path.write_text(whole)
    assert load_run(path, job) == json.loads(whole)


def test_an_agent_of_ones_own_joins_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from agents.agent import Agent\n"
        "class Halver(Agent):\n"
        "    def __init__(self, seed):\n"
        "        self.seed = seed\n"
        "    def act(self, observation):\n"
        "        return 0\n"
    )
    args = small_args(tmp_path / "out", agents=("constant", f"{file}:Halver"), seeds=1)
    report = main(args)
    assert "mine.py:Halver" in report.read_text()
    assert make_agent("agents.baselines:GreedyLR", 0).act is not None


def test_a_diverged_run_is_a_result(tmp_path: Path) -> None:
    settings = SMALL | {"learning_rate": 1e3, "max_lr": 1e4, "max_iters": 60}
    args = small_args(
        tmp_path,
        agents=("constant", "linear"),
        settings=json.dumps(settings | {"eval_interval": 20}),
    )
    page = main(args).read_text()
    assert "2 of 2" in page
    record = json.loads((tmp_path / "runs" / "constant-seed0.json").read_text())
    assert record["metrics"]["diverged"] is True
    assert np.isfinite(record["metrics"]["final_val_loss"])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"agents": ("constnt",)}, "agent 'constnt' is unknown; use one of constant"),
    ({"agents": ("nowhere:Agent",)}, "cannot be loaded"),
    ({"agents": ("nowhere.py:Agent",)}, "cannot be loaded"),
    ({"agents": ("agents.baselines:Nobody",)}, "cannot be loaded"),
    ({"agents": ()}, "--agents must name each agent once"),
    ({"agents": ("wsd", "wsd")}, "--agents must name each agent once"),
    ({"seeds": 0}, "--seeds must be at least 1"),
    ({"samples": 0}, "--samples must be at least 1"),
    ({"training_episodes": -1}, "--training-episodes must be >= 0"),
    ({"settings": "{"}, "--settings must be JSON"),
    ({"settings": "[1]"}, "--settings must be a JSON object"),
    ({"settings": '{"lr": 1}'}, "unknown keyword 'lr'"),
    ({"settings": '{"max_iters": 0}'}, "max_iters must be at least 1"),
    ({"env": "markof"}, "did you mean 'markov'"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD)
def test_a_wrong_argument_ends_before_any_work(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main(small_args(tmp_path / "out", **overrides))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match=r"error: .*file"):
        main(small_args(tmp_path / "file" / "out"))


# ------------------------------------------------------------------------ statistics


def fake(agent: str, seed: int, loss: float) -> dict[str, Any]:
    metrics = dict.fromkeys(METRICS, loss)
    return {
        "job": {"agent": agent, "seed": seed},
        "metrics": {**metrics, "diverged": False},
    }


def test_the_interval_is_scipys() -> None:
    values = [2.0, 2.1, 1.9, 2.4]
    expected = stats.bootstrap(
        (values,),
        np.mean,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert interval(values) == pytest.approx(expected)
    assert interval([1.0]) is None
    assert interval([1.0, 1.0]) == (1.0, 1.0)


def test_differences_are_paired_by_seed() -> None:
    noise = {0: 0.0, 1: 0.5, 2: -0.3}
    records = [fake("constant", s, 2.0 + n) for s, n in noise.items()]
    records += [fake("better", s, 1.9 + n) for s, n in noise.items()]
    best, constant = summarize(records)
    assert best["agent"] == "better"
    assert best["versus_constant"] == pytest.approx(-0.1)
    assert best["versus_constant_low"] == pytest.approx(-0.1)
    assert constant["versus_constant"] is None
    text = verdict([best, constant])
    assert "0.1000 below" in text
    assert "95 % interval 0.1000 to 0.1000, 3 seeds" in text
    assert "With so few seeds" in text


def test_the_verdict_admits_when_nothing_helped() -> None:
    records = [fake("constant", s, 2.0) for s in range(3)]
    records += [fake("worse", s, 2.1) for s in range(3)]
    assert "No agent did better" in verdict(summarize(records))
