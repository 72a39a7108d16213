"""The hash of a script's code covers what its numbers depend on, and no words."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dependencies import NO_NUMBERS, Sources

FILES = {
    "benchmarks/__init__.py": "",
    "benchmarks/script.py": (
        '"""What it does."""\n'
        "import json, numpy\n"
        "from lr_gym import train\n"
        "from . import helper\n"
        "def later():\n    import agents.lazy\n"
    ),
    "benchmarks/helper.py": (
        "def helper(x):\n"
        '    """Return x."""\n'
        "    if x < 0:\n"
        '        raise ValueError(f"x is {x}")\n'
        "    return x\n"
    ),
    "benchmarks/unused.py": "x = 1\n",
    "lr_gym/__init__.py": "from lr_gym.deep import train as train\n",
    "lr_gym/deep.py": "def train():\n    return 1\n",
    "lr_gym/laws/law.json": "{}",
    "agents/lazy.py": "",
}


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def code(root: Path) -> str:
    return Sources(root).code_hash("benchmarks.script")


@pytest.mark.parametrize("name", [n for n in FILES if "unused" not in n])
def test_a_change_of_a_dependency_changes_the_hash(root: Path, name: str) -> None:
    before = code(root)
    path = root / name
    path.write_text(path.read_text() + "\ny = 1\n")
    assert code(root) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("What it does.", "What the script does."),
        ("Return x.", "Return x\n\n    unchanged."),
        ("x is {x}", "x must be 0 or more, got {x}"),
        ("    return x\n", "    # A comment.\n\n    return (x)\n"),
        ("\n", "\r\n"),
    ],
)
def test_words_and_formatting_do_not_change_the_hash(
    root: Path, old: str, new: str
) -> None:
    before = code(root)
    for name in ("script", "helper"):
        path = root / "benchmarks" / f"{name}.py"
        path.write_bytes(path.read_text().replace(old, new).encode())
    assert code(root) == before


def test_the_kind_of_an_error_changes_the_hash(root: Path) -> None:
    before = code(root)
    path = root / "benchmarks" / "helper.py"
    path.write_text(path.read_text().replace("ValueError", "TypeError"))
    assert code(root) != before


def test_modules_that_the_script_does_not_import_do_not_count(root: Path) -> None:
    before = code(root)
    (root / "benchmarks" / "unused.py").write_text("x = 2\n")
    (root / "numpy.py").write_text("x = 2\n")
    assert code(root) == before


def test_a_module_of_another_project_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"numpy is no module of the project"):
        Sources(root).code_hash("numpy")


def test_the_modules_that_do_not_count_exist() -> None:
    sources = Sources()
    for name in NO_NUMBERS:
        assert sources.root.joinpath(*name.split(".")).with_suffix(".py").is_file()
