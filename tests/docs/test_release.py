"""Version and Python version are the same in every file that states them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import lr_gym

ROOT = Path(__file__).parents[2]


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_changelog_begins_with_the_version() -> None:
    newest = re.search(r"^## (\S+) \((\S+)\)$", _read("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == lr_gym.__version__


def test_the_citation_states_the_version() -> None:
    assert f"\nversion: {lr_gym.__version__}\n" in _read("CITATION.cff")


def test_tools_target_the_oldest_python() -> None:
    settings = tomllib.loads(_read("pyproject.toml"))
    oldest = settings["project"]["requires-python"].removeprefix(">=")
    assert settings["tool"]["mypy"]["python_version"] == oldest
    target = settings["tool"]["ruff"]["target-version"]
    assert target == f"py{oldest.replace('.', '')}"
    classifiers = settings["project"]["classifiers"]
    assert f"Programming Language :: Python :: {oldest}" in classifiers
