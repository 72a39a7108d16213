"""benchmarks/README.md names every script and every result, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.paths import RESULTS, ROOT

FOLDER = ROOT / "benchmarks"
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`]+)`", INDEX)
COMMANDS = [code.split() for code in CODE if code.startswith("python ")]
RESULT_PATTERNS = [code for code in CODE if code.startswith("results/") and code[8:]]


def named_script(command: list[str]) -> Path:
    """Return the file that a command of the index runs."""
    if command[1] == "-m":
        return ROOT / f"{command[2].replace('.', '/')}.py"
    return ROOT / command[1]


def named_results(pattern: str) -> set[Path]:
    """Return the committed files that a path or a folder of the index stands for."""
    if pattern.endswith("/"):
        found = [path for path in (FOLDER / pattern).rglob("*") if path.is_file()]
    else:
        found = list(FOLDER.glob(pattern))
    return {path for path in found if "jobs" not in path.parts}


def test_every_script_is_in_the_index() -> None:
    runnable = {
        path
        for path in FOLDER.rglob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert runnable <= {named_script(command) for command in COMMANDS}


def test_every_committed_result_is_in_the_index() -> None:
    indexed = {path for p in RESULT_PATTERNS for path in named_results(p)}
    committed = {
        path
        for path in RESULTS.rglob("*")
        if path.is_file() and "jobs" not in path.parts
    }
    assert committed == indexed


def test_everything_that_the_index_names_exists() -> None:
    for command in COMMANDS:
        assert named_script(command).is_file(), command
    for pattern in RESULT_PATTERNS:
        assert named_results(pattern), pattern
    for link in re.findall(r"\]\(([^)#]+)\)", INDEX):
        assert (FOLDER / link).is_file(), link
