"""Users' loops: finished runs are kept, and runs of other code are never mixed in."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.controller import foreign_loops
from benchmarks.controller.foreign_loops import Args, Run


@pytest.fixture(name="losses")
def fixture_losses(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Replace training; return the losses of the runs that are trained."""
    trained: dict[str, float] = {}

    def final_loss(run: Run, iterations: int) -> float:
        trained[run.key] = 2.0 + run.rate + run.seed / 100 + iterations
        return trained[run.key]

    monkeypatch.setattr(foreign_loops, "final_loss", final_loss)
    monkeypatch.setattr(foreign_loops, "ProcessPoolExecutor", ThreadPoolExecutor)
    return trained


def test_finished_runs_are_kept_and_those_of_other_code_run_again(
    losses: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = Args(seeds=1, workers=1, out=tmp_path / "loops.json")
    result = foreign_loops.main(args)
    assert result["final_val_loss"] == losses
    assert len(losses) == len(foreign_loops.plan(1))
    assert json.loads(args.out.read_text())["code"] == foreign_loops.codes()

    losses.clear()
    content = json.loads(args.out.read_text())
    content["final_val_loss"].popitem()  # as if interrupted
    args.out.write_text(json.dumps(content))
    assert foreign_loops.main(args)["final_val_loss"] == result["final_val_loss"]
    assert len(losses) == 1

    losses.clear()
    changed = foreign_loops.codes() | {"controlled": "changed"}
    monkeypatch.setattr(foreign_loops, "codes", lambda: changed)
    foreign_loops.main(args)
    assert losses  # those with the controller alone: lr_gym made no others
    assert all(" controlled " in key for key in losses)
    assert "made the runs of ['controlled']: they run again" in capsys.readouterr().out
    assert json.loads(args.out.read_text())["code"] == changed


def test_runs_that_name_no_code_are_old(
    losses: dict[str, float], tmp_path: Path
) -> None:
    args = Args(seeds=1, workers=1, out=tmp_path / "loops.json")
    old = {run.key: 9.0 for run in foreign_loops.plan(1)}
    content = {"settings": {"iterations": args.iterations}, "final_val_loss": old}
    args.out.write_text(json.dumps(content))
    assert foreign_loops.main(args)["final_val_loss"] == losses
    assert 9.0 not in losses.values()
