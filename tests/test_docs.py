"""The documentation's Python runs, page by page, and its pages name what exists."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from mktestdocs import check_md_file

import lr_gym
import lr_gym.controllers

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path) -> None:
    check_md_file(page, memory=True)


def test_there_are_pages_with_code() -> None:
    names = {page.stem for page in WITH_CODE}
    assert names == {
        "agents",
        "bring_your_own",
        "controller",
        "environment",
        "index",
        "simulator",
    }


@pytest.mark.parametrize("module", [lr_gym, lr_gym.controllers])
def test_the_api_page_has_every_exported_name(module: ModuleType) -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: [\w.]+\.(\w+)$", page, flags=re.MULTILINE))
    exported = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    } - {"annotations"}
    assert exported <= documented
