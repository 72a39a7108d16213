"""Result files: provenance with a command that runs, several results in one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from benchmarks.paths import ROOT
from benchmarks.provenance import provenance
from benchmarks.results_file import read_results, update_result, write_result


def test_a_result_is_written_with_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "result.json"
    result = write_result(path, {"loss": 2.0})
    assert result["loss"] == 2.0
    assert result["provenance"]["versions"]["torch"]
    assert json.loads(path.read_text()) == result


def test_one_result_of_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert read_results(path) == {}
    update_result(path, "mini", {"seconds": 1})
    update_result(path, "tiny", {"seconds": 2})
    results = update_result(path, "tiny", {"seconds": 3})
    assert [results[name]["seconds"] for name in ("mini", "tiny")] == [1, 3]
    assert results == read_results(path)
    assert all("provenance" in result for result in results.values())


@pytest.mark.parametrize(
    ("module", "script", "command"),
    [
        (
            "benchmarks.controller.cost",
            str(ROOT / "benchmarks/controller/cost.py"),
            "python -m benchmarks.controller.cost --env 'my text.txt'",
        ),
        (
            None,
            str(ROOT / "benchmarks/compare_agents.py"),
            "python benchmarks/compare_agents.py --env 'my text.txt'",
        ),
        (None, "/elsewhere/mine.py", "python mine.py --env 'my text.txt'"),
    ],
)
def test_the_command_can_be_run_again(
    module: str | None, script: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    main.__spec__ = None if module is None else SimpleNamespace(name=module)  # type: ignore[assignment]  # all that is read
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [script, "--env", "my text.txt"])
    assert provenance()["command"] == command
