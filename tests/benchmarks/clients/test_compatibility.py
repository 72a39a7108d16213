"""Running a client: what passes, what fails, and with which message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.clients import checks, compatibility
from benchmarks.clients.compatibility import CLIENTS, last_line, run_check

PYTHON = Path(sys.executable)


def test_every_named_check_exists() -> None:
    for client in CLIENTS.values():
        for check in client.checks.values():
            assert not check.isidentifier() or callable(getattr(checks, check))


def test_a_check_that_passes_has_no_message(tmp_path: Path) -> None:
    result = run_check(PYTHON, "-c pass; -c pass", tmp_path)
    assert (result["outcome"], result["message"]) == ("pass", "")


def test_a_check_that_fails_names_the_error(tmp_path: Path) -> None:
    result = run_check(PYTHON, "-c pass; -c 1/0", tmp_path)
    assert result["outcome"] == "fail"
    assert result["message"].startswith("ZeroDivisionError")


def test_a_check_that_hangs_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "TIME_LIMIT", 0.2)
    (tmp_path / "hang.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    result = run_check(PYTHON, "{cleanrl}/hang.py", tmp_path)
    assert result["message"] == "not finished after 0.2 s"


def test_the_last_line_of_an_error() -> None:
    assert last_line("Traceback:\n  x\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == "no message"
