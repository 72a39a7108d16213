"""The comparison: it resumes, reports failures, and gives the same result anywhere."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.comparison import executors, jobs
from benchmarks.comparison.entry import Args, main, make_tasks
from benchmarks.comparison.executors import ProcessExecutor, SerialExecutor, run_all
from benchmarks.comparison.headline import headline
from benchmarks.comparison.jobs import Job, load_record, run_job
from benchmarks.comparison.summary import summarize
from benchmarks.paths import ROOT
from lr_gym import PopulationTrainer, load_corpus, schedule_factor
from tests.helpers.small import SMALL, small_config

SETTINGS = json.dumps(SMALL)
AGENTS = ("constant", "linear", "cosine", "q_paper", "q_improved", "as_published")
SUMMARIES = ("summary.json", "summary.csv", "runs.csv")


def small_args(out: Path, **overrides: Any) -> Args:
    given: dict[str, Any] = {
        "agents": AGENTS,
        "seeds": 8,
        "tune_seeds": 1,
        "peaks": (0.5, 1.0, 2.0),
        "learners": 2,
        "workers": 1,
        "settings": SETTINGS,
        "out": out,
    }
    return Args(**(given | overrides))


def small_job(method: str = "linear", **overrides: Any) -> Job:
    given: dict[str, Any] = {
        "env": "markov",
        "phase": "test",
        "seeds": (0, 1),
        "settings": {"scale": "tiny", **SMALL},
    }
    return Job(method, **(given | overrides))


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished comparison."""
    out = tmp_path_factory.mktemp("comparison")
    main(small_args(out))
    return out


def records_of(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "jobs").iterdir())
    return [json.loads(path.read_text()) for path in paths]


def test_the_architecture_is_part_of_a_job_where_it_is_not_the_default() -> None:
    def settings(architecture: Any, text: str = SETTINGS) -> Any:
        args = small_args(Path(), architecture=architecture, settings=text)
        (task,) = make_tasks(args, ("linear",))
        return task.settings

    assert settings(None) == settings("gpt") == {"scale": "tiny", **SMALL}
    named = json.dumps(SMALL | {"architecture": "lstm"})
    assert settings("lstm") == settings(None, named) == settings("lstm", named)
    assert settings("lstm")["architecture"] == "lstm"
    with pytest.raises(ValueError, match="--architecture conv contradicts --settings"):
        settings("conv", named)


@pytest.mark.parametrize("architecture", ["lstm", "conv"])
def test_a_comparison_on_another_architecture_ends_with_a_report(
    architecture: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"agents": ("constant", "linear"), "seeds": 2, "peaks": (1.0, 2.0)}
    args = small_args(tmp_path, architecture=architecture, **few)
    report = main(args).read_text()
    assert f"tasks: markov tiny {architecture}\n" in capsys.readouterr().out
    assert f"1 layers of {architecture}, width\n    16, context" in report
    records = records_of(tmp_path)
    assert {record["training"]["architecture"] for record in records} == {architecture}


# ------------------------------------------------------------------------ what is left


def test_a_comparison_leaves_records_summaries_and_a_report(folder: Path) -> None:
    with (folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = {row["label"] for row in rows}
    controls = {f"{a} ({c})" for a in AGENTS[3:5] for c in ("open_loop", "shuffled")}
    assert labels == {*AGENTS, *controls}
    assert {row["call"] for row in rows if row["label"] == "linear"} == {"reference"}
    with (folder / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 8 * len(labels)
    assert (folder / "report.html").stat().st_size > 1_000
    assert (folder / "timings.csv").exists()


def test_a_record_says_how_to_repeat_it(folder: Path) -> None:
    record = next(
        r
        for r in records_of(folder)
        if (r["job"]["method"], r["job"]["phase"]) == ("cosine", "test")
    )
    assert record["training"]["n_embd"] == SMALL["n_embd"]
    assert record["settings"]["base_schedule"] == "cosine"
    assert record["corpus"]["corpus_complete"] is True
    assert record["precision"] == "float32"
    assert record["provenance"]["versions"]["torch"]
    for run in record["runs"]:
        assert len(run["curves"]["val_loss"]) == 5
        assert len(run["curves"]["optimizer_lr"]) == 4
        assert run["metrics"]["final_val_loss"] == run["curves"]["val_loss"][-1]
    assert record["runs"][0]["metrics"]["inference_tokens_per_second"] > 0


def test_tuning_never_sees_the_test_split(folder: Path) -> None:
    for record in records_of(folder):
        for run in record["runs"]:
            assert ("test_loss" in run["metrics"]) == (record["job"]["phase"] != "tune")


def test_the_placebo_is_cosine_number_for_number(folder: Path) -> None:
    def losses(name: str) -> list[float]:
        with (folder / "runs.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["label"] == name]
        return [float(row["test_loss"]) for row in rows]

    assert losses("as_published") == losses("cosine")
    rows = summarize(records_of(folder))
    assert headline(rows)["placebo as_published equals cosine"] == "yes"


def test_always_keep_equals_training_without_the_environment() -> None:
    for method in ("constant", "wsd"):
        record = run_job(small_job(method, seeds=(1,)))
        trainer = PopulationTrainer(small_config(), load_corpus("markov"))
        trainer.reset([0], [1])
        losses = [float(trainer.evaluate()[0])]
        factors = schedule_factor(method, np.arange(8), 8, 0)
        for start in range(0, 8, 2):
            trainer.train(2, 1e-3 * factors[None, start : start + 2])
            losses.append(float(trainer.evaluate()[0]))
        (run,) = record["runs"]
        assert run["curves"]["val_loss"] == losses
        test = float(trainer.evaluate("test", exact=True)[0])
        assert run["metrics"]["test_loss"] == test


def test_a_run_that_diverges_is_a_result() -> None:
    record = run_job(small_job(learning_rates=(1e-3, 0.9), settings={
        "scale": "tiny", **SMALL, "lr_factors": (1.0,), "grad_clip": 0.0,
        "divergence_factor": 1.0001,
    }))  # fmt: skip
    lost = [run["metrics"]["diverged"] for run in record["runs"]]
    assert lost == [False, True]
    kept, worst = (run["metrics"]["test_loss"] for run in record["runs"])
    assert worst > kept
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("base", ["", "(agents.agent.Agent)"])
def test_an_agent_of_ones_own_joins_by_its_path(tmp_path: Path, base: str) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "import agents.agent\n"
        f"class Halver{base}:\n"
        "    def __init__(self, seed): pass\n"
        "    def act(self, observation): return 0\n"
        "class Silent: pass\n"
    )
    record = run_job(small_job(f"{source}:Halver"))
    rates = record["runs"][0]["curves"]["learning_rate"]
    assert rates == pytest.approx([1e-3 / 2**k for k in range(1, 5)])
    for wrong in (f"{source}:Absent", "no.module:Agent", f"{tmp_path}/absent.py:A"):
        with pytest.raises(ValueError, match="cannot be loaded"):
            run_job(small_job(wrong))
    with pytest.raises(ValueError, match=r"Silent has no method act\(observation\)"):
        run_job(small_job(f"{source}:Silent"))


# ---------------------------------------------------------------- the same, wherever


def test_a_second_start_computes_nothing_and_writes_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (folder / name).read_bytes() for name in SUMMARIES}

    def refuse(job: Job) -> dict[str, Any]:
        raise AssertionError(f"{job} was finished")

    monkeypatch.setattr(executors, "run_job", refuse)
    main(small_args(folder))
    assert {name: (folder / name).read_bytes() for name in SUMMARIES} == before


@pytest.mark.slow
def test_workers_give_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    main(small_args(tmp_path, workers=2))
    for name in SUMMARIES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def command(out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "benchmarks/compare_agents.py",
        *("--agents", *AGENTS),
        *("--seeds", "8", "--tune-seeds", "1", "--learners", "2"),
        *("--peaks", "0.5", "1.0", "2.0", "--settings", SETTINGS),
        *("--out", str(out), *more),
    ]


def processes_naming(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # gone meanwhile
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_ten_times_and_restarted_the_summary_is_the_same(
    folder: Path, tmp_path: Path
) -> None:
    """SIGKILL at random moments; the workers go with their parent."""
    moments = random.Random(0)
    mark = f"LR_GYM_TEST_MARK={tmp_path}"
    environment = {**os.environ, "LR_GYM_TEST_MARK": str(tmp_path)}
    for _ in range(10):
        process = subprocess.Popen(
            command(tmp_path, "--workers", "2"),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=moments.uniform(2.0, 8.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    last = subprocess.run(
        command(tmp_path, "--workers", "2"), cwd=ROOT, env=environment, check=False
    )
    assert last.returncode == 0
    for name in SUMMARIES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    deadline = time.monotonic() + 30.0
    while processes_naming(mark) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes_naming(mark)


def test_a_worker_that_dies_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ProcessExecutor(1)
    submit = pool.submit
    deaths: list[int] = []

    def kill_first(job: Job) -> Any:
        future = submit(job)
        if not deaths:
            (process,) = pool._pool._processes
            os.kill(process, signal.SIGKILL)
            deaths.append(process)
        return future

    monkeypatch.setattr(pool, "submit", kill_first)
    job = small_job()
    done = run_all(lambda _: [job], tmp_path, pool)
    assert deaths
    assert done[job.file_name]["runs"] != []


def test_a_job_that_kills_its_workers_ends_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ProcessExecutor(1)
    submit = pool.submit

    def kill_always(job: Job) -> Any:
        future = submit(job)
        for process in pool._pool._processes:
            os.kill(process, signal.SIGKILL)
        return future

    monkeypatch.setattr(pool, "submit", kill_always)
    with pytest.raises(RuntimeError, match="3 workers died running linear-markov"):
        run_all(lambda _: [small_job()], tmp_path, pool)


@pytest.mark.slow
def test_the_winners_meet_again_at_a_larger_scale(tmp_path: Path) -> None:
    """On the first corpus, at three peaks around the tuned one, on fewer seeds."""
    text = tmp_path / "other.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 200)
    out = tmp_path / "out"
    main(
        small_args(
            out,
            agents=("linear", "constant", "random", "q_improved"),
            env=("markov", str(text)),
            final="mini",
        )
    )
    with (out / "final" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} == {"markov mini"}
    assert {"linear", "constant", "q_improved"} <= {row["label"] for row in rows}
    tuned = {}
    for path in (out / "jobs").glob("linear-markov-*.json"):
        record = json.loads(path.read_text())
        scale, phase = record["job"]["settings"]["scale"], record["job"]["phase"]
        tuned[scale, phase] = set(record["job"]["learning_rates"])
    (chosen,) = tuned["tiny", "test"]
    assert {chosen / 2, chosen, chosen * 2} <= tuned["mini", "tune"]
    assert (out / "final" / "report.html").exists()


# ------------------------------------------------------------------------ wrong input


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"peaks": (1.0,)}, "--peaks must be two or more numbers above 0"),
        ({"agents": ("wsd", "wsd")}, "--agents must name each once"),
        (
            {"agents": ("adam",)},
            "agent 'adam' is unknown; did you mean 'random'? Use one of constant",
        ),
        ({"env": ("markov", "markov")}, "--env must name each once"),
        ({"env": ("absent.txt",)}, "absent.txt"),
        ({"settings": "{"}, "--settings must be JSON"),
        ({"settings": '{"n_layers": 2}'}, "did you mean 'n_layer'"),
        ({"settings": '{"dropout": 2}'}, "dropout must be"),
    ],
)
def test_a_wrong_argument_ends_before_any_work(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(small_args(tmp_path / "out", **overrides))
    assert message in str(ending.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_is_reported(tmp_path: Path) -> None:
    job = small_job()
    path = tmp_path / job.file_name
    path.write_text("{")
    with pytest.raises(ValueError, match="not a whole record"):
        run_all(lambda _: [job], tmp_path, SerialExecutor())
    path.write_text(json.dumps({"format": jobs.FORMAT, "job": {"method": "other"}}))
    with pytest.raises(ValueError, match="holds another job"):
        load_record(path, job)
