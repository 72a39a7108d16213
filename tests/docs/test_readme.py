"""The tables of README and docs match the result files; README's code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import write_tables
from benchmarks.comparison.methods import find_method
from benchmarks.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
MAX_LINES = 200


@pytest.mark.parametrize("page", write_tables.pages(), ids=lambda page: page.name)
def test_the_tables_match_the_result_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert write_tables.rendered(text) == text


def test_every_table_is_shown() -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in write_tables.pages()}
    write_tables.check_all_used(texts)
    with pytest.raises(ValueError, match="no file shows the tables headline, tiny"):
        write_tables.check_all_used({})


def test_unknown_and_unpaired_markers_are_errors() -> None:
    with pytest.raises(ValueError, match="marker 'ppo' names no table"):
        write_tables.rendered("<!-- begin ppo -->\n<!-- end ppo -->")
    with pytest.raises(ValueError, match="do not pair up"):
        write_tables.rendered("<!-- begin lr -->\n")
    with pytest.raises(ValueError, match="do not pair up"):
        write_tables.rendered("<!-- begin lr -->\n<!-- end tiny -->\n")


def test_a_table_may_be_in_several_places() -> None:
    block = "<!-- begin lr -->\nold\n<!-- end lr -->\n"
    twice = write_tables.rendered(f"{block}between\n{block}")
    first, second = twice.split("between\n")
    assert first == second
    assert "| corpus |" in first
    assert "old" not in first


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


@pytest.mark.slow
def test_the_first_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "README.md", "exec"), {})  # noqa: S102 - text of this repository
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = re.search(r"```text\n(.*?)```", README, flags=re.DOTALL)
    assert shown is not None
    for line, expected in zip(lines, shown[1].splitlines(), strict=True):
        iteration, rate, *losses = expected.split()
        assert line[:2] == [iteration, rate]
        assert [float(x) for x in line[2:]] == pytest.approx(
            [float(x) for x in losses],
            abs=0.1,  # the number format depends on the CPU
        )


def test_the_agent_of_the_agents_page_is_found(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    [source] = [block for block in blocks if "class Cautious" in block]
    file = tmp_path / "cautious.py"
    file.write_text(source)
    agent = find_method(f"{file}:Cautious").make(0)
    agent.keep_action = 1
    assert [agent.act([loss]) for loss in (3.0, 2.0, 2.5, 2.4)] == [1, 1, 0, 1]  # type: ignore[arg-type]  # a list will do
