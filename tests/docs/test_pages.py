"""The documentation: its code runs, and the API page is complete."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from mktestdocs import check_md_file

import lr_gym
import lr_gym.controllers

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
API = (DOCS / "api.md").read_text(encoding="utf-8")
DOCUMENTED = set(re.findall(r"^::: ([\w.]+)$", API, flags=re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path) -> None:
    check_md_file(page, memory=True)


def test_these_pages_have_code() -> None:
    names = {page.stem for page in WITH_CODE}
    assert names == {
        "agents",
        "bring_your_own",
        "controller",
        "environment",
        "index",
        "simulator",
    }


@pytest.mark.parametrize("package", [lr_gym, lr_gym.controllers])
def test_the_api_page_documents_every_export(package: ModuleType) -> None:
    exported = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    documented = {name.rpartition(".")[2] for name in DOCUMENTED}
    assert exported - {"annotations"} <= documented


@pytest.mark.parametrize(
    "module",
    [
        "lr_gym.sb3",
        "lr_gym.controllers.integrations.huggingface",
        "lr_gym.controllers.integrations.lightning",
    ],
)
def test_the_api_page_documents_every_integration(module: str) -> None:
    spec = importlib.util.find_spec(module)  # imported modules are optional extras
    assert spec is not None
    assert spec.origin is not None
    source = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    public = {
        f"{module}.{node.name}"
        for node in source.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
    }
    assert public <= DOCUMENTED


@pytest.fixture(scope="module")
def site_hooks() -> ModuleType:
    path = DOCS / "site_hooks.py"
    spec = importlib.util.spec_from_file_location("site_hooks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_doctests_become_code_blocks(site_hooks: ModuleType) -> None:
    text = "One.\n\n>>> 1 + 1\n2\n\nTwo."
    fenced = "One.\n\n\n```pycon\n>>> 1 + 1\n2\n```\n\nTwo."
    assert site_hooks.with_fences(text) == fenced
    assert site_hooks.with_fences(fenced) == fenced
    assert site_hooks.with_fences(">>> 2\n2") == "\n```pycon\n>>> 2\n2\n```"
