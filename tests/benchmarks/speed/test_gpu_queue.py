"""The GPU queue in small on a CPU: every part, continuation, failures, skips."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.docs_tables.gpu import MISSING, gpu_table
from benchmarks.speed import gpu_queue
from benchmarks.speed.gpu import correct, law, session, widths
from benchmarks.speed.timing import CannotRun
from lr_gym import RecordedRun, fit_surrogate, load_corpus, preset
from lr_gym.surrogate.runs import load_runs
from tests.benchmarks.speed.test_throughput import numbers

SCRIPT = Path(gpu_queue.__file__)
LARGEST = 1_000_000  # bytes
LONGEST = 300.0  # seconds of a sub-run: two fit one call
# Packages that a machine with a GPU may lack.
ABSENT = (
    *("tyro", "scipy", "pandas", "matplotlib", "jinja2", "rliable", "ray"),
    *("stable_baselines3", "sb3_contrib", "schedulefree", "prodigyopt", "filelock"),
)
# torch needs filelock, so filelock is blocked after torch is imported.
PROGRAM = f"""
import runpy, sys
import torch
sys.path.pop(0)
sys.modules.update(dict.fromkeys({ABSENT}))
sys.argv = [{str(SCRIPT)!r}, *sys.argv[1:]]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""


def call(out: Path, *arguments: str) -> int:
    """Run the queue in this process; return its exit code."""
    return gpu_queue.main(gpu_queue.parse(["--dry-run", "--out", str(out), *arguments]))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return folder and output of a dry run outside the checkout."""
    out = tmp_path_factory.mktemp("queue")
    command = [sys.executable, "-c", PROGRAM, "--dry-run", "--out", str(out)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=out, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return out, done.stdout


@pytest.mark.slow
def test_a_dry_run_runs_every_part_with_little_installed(
    dry: tuple[Path, str],
) -> None:
    out, shown = dry
    assert {path.stem for path in out.iterdir()} == set(gpu_queue.PARTS)
    for path in out.iterdir():
        content = read(path)
        assert content["complete"], path
        assert content["dry_run"]
        assert content["errors"] == {}
        assert all(map(math.isfinite, numbers(content)))
        (source,) = content["sessions"]
        command = "python benchmarks/speed/gpu_queue.py --dry-run"
        assert source["command"].startswith(command)
        assert source["versions"]["torch"]
        assert path.stat().st_size < LARGEST
        assert f"| {path.stem} | done |" in shown


@pytest.mark.slow
def test_every_check_on_a_cpu_passes_or_says_why_it_is_skipped(
    dry: tuple[Path, str],
) -> None:
    checks = read(dry[0] / "correct.json")["runs"]
    run = {name for name, check in checks.items() if check["passed"] is not None}
    assert all(checks[name]["passed"] for name in run)
    assert all(checks[name]["note"] for name in checks.keys() - run)
    assert {f"off, E={size}, dropout 0.2" for size in correct.SIZES} < run
    assert {"generation", "vector environment", "undo through the environment"} < run


@pytest.mark.slow
def test_as_published_equals_its_baseline(dry: tuple[Path, str]) -> None:
    runs = read(dry[0] / "paper.json")["runs"]
    assert len(runs) == 10
    losses = runs["baseline"]["final_val_loss"]
    assert losses == runs["as published"]["final_val_loss"]
    assert losses != runs["real control"]["final_val_loss"]
    for run in runs.values():
        assert run["best_val_loss"]["standard_error"] >= 0
        assert len(run["curves"]) == len(run["seeds"])


@pytest.mark.slow
def test_the_table_shows_finished_measurements(
    dry: tuple[Path, str], tmp_path: Path
) -> None:
    empty = gpu_table(tmp_path)
    assert empty.count(MISSING) == 8
    renamed = {
        "speed": {"E=8": "E=2"},
        "episode": {
            f"linear, graph, {start}": f"linear, off, {start}"
            for start in ("cold", "warm")
        },
    }
    for path in dry[0].iterdir():
        content = read(path)
        for name, old in renamed.get(path.stem, {}).items():
            content["runs"][name] = content["runs"].pop(old)
        (tmp_path / path.name).write_text(json.dumps(content))
    full = gpu_table(tmp_path)
    assert full.count(MISSING) == 1  # 64 texts; the dry run generates two
    checks = read(dry[0] / "correct.json")["runs"].values()
    count = sum(check["passed"] is not None for check in checks)
    assert f"| {count} of {count} | all |" in full
    assert full.count("| best val loss, ") == 10


@pytest.mark.slow
def test_recorded_runs_read_back_for_a_law(
    dry: tuple[Path, str], tmp_path: Path
) -> None:
    law.write_npz(dry[0] / "law.json", tmp_path)
    runs = load_runs(tmp_path / "shakespeare-paper-fit.npz")
    assert len(runs) == 3
    assert isinstance(runs[0], RecordedRun)
    assert len(load_runs(tmp_path / "shakespeare-paper-held-out.npz")) == 3
    (first, *_) = read(dry[0] / "law.json")["runs"].values()
    first["recorded"][0]["rates_crc32"] += 1
    with pytest.raises(ValueError, match="has another plan"):
        law.recorded_runs([first])


def test_the_law_part_has_40_runs_that_a_fit_takes() -> None:
    plans = law.chosen_plans(preset("paper", "shakespeare"))
    assert {kind: len(rows) for kind, rows in plans.items()} == {
        "fit": 32,
        "held-out": 8,
    }
    schedules = {row.name.split(" at ")[0] for row in plans["fit"][:16]}
    assert schedules == {"constant", "cosine", "step", "wsd"}
    assert callable(fit_surrogate)


@pytest.mark.slow
def test_a_killed_run_continues_without_repeating_sub_runs(
    dry: tuple[Path, str], tmp_path: Path
) -> None:
    path = tmp_path / "widths.json"
    command = [sys.executable, str(SCRIPT), "--dry-run", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--parts", "widths"], stderr=subprocess.DEVNULL
    )
    ended = time.monotonic() + 60
    while not path.exists() and time.monotonic() < ended:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = read(path)
    assert not before["complete"]
    assert before["runs"]
    assert call(tmp_path, "--parts", "widths") == 0
    after = read(path)
    assert after["complete"]
    assert {name: after["runs"][name] for name in before["runs"]} == before["runs"]
    new = after["runs"].keys() - before["runs"].keys()
    assert {after["runs"][name]["session"] for name in new} == {1}
    assert len(after["sessions"]) == 2


def test_a_failed_sub_run_is_recorded_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = widths.width_run

    def failing(ours: session.Session, width: int, method: str) -> dict[str, Any]:
        if method == "controller":
            raise RuntimeError("out of memory")
        return {"final_by_rate": [2.0]}

    monkeypatch.setattr(widths, "width_run", failing)
    failure = {"passed": False, "measured": 1.0, "bound": 0.0}
    monkeypatch.setattr(correct, "same_updates", lambda *_: failure)
    monkeypatch.setattr(correct, "SIZES", (1,))
    monkeypatch.setattr(correct, "MODES", ("off",))
    checks = ["off, E=1, dropout 0", "off, E=1, dropout 0.2"]
    assert call(tmp_path, "--parts", "widths", "correct") == 1
    content = read(tmp_path / "widths.json")
    assert "RuntimeError: out of memory" in content["errors"]["16 controller"]
    assert "Traceback" in content["errors"]["16 controller"]
    assert content["runs"].keys() == {"16 wsd", "32 wsd"}
    assert not content["complete"]
    checked = read(tmp_path / "correct.json")
    assert [n for n, r in checked["runs"].items() if r["passed"] is False] == checks
    assert checked["runs"]["generation"]["passed"]
    assert "FAILED: 16 controller." in capsys.readouterr().out

    monkeypatch.setattr(widths, "width_run", run)
    assert call(tmp_path, "--parts", "widths") == 0
    content = read(tmp_path / "widths.json")
    assert content["complete"]
    assert content["errors"] == {}
    assert content["runs"]["16 wsd"]["final_by_rate"] == [2.0]


def test_a_part_that_cannot_be_planned_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widths, "plan", lambda _: 1 / 0)
    assert call(tmp_path, "--parts", "widths") == 1
    assert "ZeroDivisionError" in read(tmp_path / "widths.json")["errors"]["plan"]
    monkeypatch.setattr(widths, "plan", lambda _: [session.SubRun("a", 0.0, dict)])
    monkeypatch.setattr(widths, "headline", lambda _: "")
    assert call(tmp_path, "--parts", "widths") == 0


@pytest.mark.slow
def test_committed_sub_runs_do_not_run_again(
    dry: tuple[Path, str], tmp_path: Path
) -> None:
    committed = tmp_path / "committed"
    committed.mkdir()
    whole = (dry[0] / "speed.json").read_text()
    (committed / "speed.json").write_text(whole)
    part = json.loads((dry[0] / "law.json").read_text())
    del part["runs"]["held-out 0"]
    (committed / "law.json").write_text(json.dumps({**part, "complete": False}))
    arguments = ["--committed", str(committed), "--parts", "speed", "law"]
    assert call(tmp_path / "out", *arguments) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["law.json"]
    law_file = read(tmp_path / "out" / "law.json")
    assert law_file["complete"]
    assert law_file["runs"]["fit 0"] == part["runs"]["fit 0"]


def test_a_sub_run_starts_only_if_its_seconds_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def sub(name: str, seconds: float) -> session.SubRun:
        def run() -> dict[str, Any]:
            ran.append(name)
            return {}

        return session.SubRun(name, seconds, run)

    plan = [sub("short", 1.0), sub("long", 1e6), sub("brief", 2.0)]
    monkeypatch.setattr(widths, "plan", lambda _: plan)
    monkeypatch.setattr(widths, "headline", lambda _: "")
    assert call(tmp_path, "--parts", "widths", "--budget", "50") == 0
    assert ran == ["short", "brief"]
    assert not read(tmp_path / "widths.json")["complete"]
    assert call(tmp_path, "--parts", "widths", "--budget", "0") == 0
    assert ran == ["short", "brief"]


def fake_gpu(folder: Path) -> session.Session:
    """Return a session for planning only."""
    return session.Session(
        device=torch.device("cuda"),
        corpus=load_corpus("markov"),
        settings={"device": "cuda"},
        deadline=0.0,
        dry_run=False,
        folder=folder,
        long_compile="default",
    )


def test_what_a_gpu_runs(tmp_path: Path) -> None:
    ours = fake_gpu(tmp_path)
    for name, part in gpu_queue.PARTS.items():
        subs = part.plan(ours)
        names = [sub.name for sub in subs]
        assert len({*names}) == len(names)
        assert all(0 < sub.seconds <= LONGEST for sub in subs)
        if name in ("correct", "episode", "populations"):
            assert any("graph" in sub for sub in names)


def test_long_runs_use_graphs_after_their_checks_pass(tmp_path: Path) -> None:
    ours = fake_gpu(tmp_path)
    file = session.PartFile(tmp_path / "correct.json", None, dry_run=False)
    assert gpu_queue.long_compile(ours, file) == "default"
    passed = session.SubRun("graph, E=1, dropout 0", 1.0, dict)
    file.record(passed, 1.0, {"passed": True}, {"all"})
    assert gpu_queue.long_compile(ours, file) == "graph"
    file.record(session.SubRun("snapshot, graph", 1.0, dict), 1.0, "error", {"all"})
    assert gpu_queue.long_compile(ours, file) == "default"
    assert "| 1 of 2 |" in gpu_table(tmp_path)


def test_expected_seconds_follow_measured_seconds(tmp_path: Path) -> None:
    file = session.PartFile(tmp_path / "law.json", None, dry_run=True)
    assert file.pace() == 1.0
    sub = session.SubRun("a", 10.0, dict)
    file.record(sub, 15.0, {}, {"a", "b"})
    file.record(session.SubRun("b", 10.0, dict), 99.0, {"passed": False}, {"a", "b"})
    assert file.pace() == 1.5
    assert file.failures == ["b"]


@pytest.mark.slow
def test_files_that_cannot_be_continued_are_errors(
    dry: tuple[Path, str], tmp_path: Path
) -> None:
    with pytest.raises(CannotRun, match="is of a dry run"):
        session.PartFile(dry[0] / "law.json", None, dry_run=False)
    (tmp_path / "law.json").write_text("{")
    with pytest.raises(CannotRun, match="is not a complete"):
        session.PartFile(tmp_path / "law.json", None, dry_run=True)
