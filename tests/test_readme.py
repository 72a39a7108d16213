"""README keeps its word: its numbers are the files', its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.methods import find_method

README = (readme.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_tables_are_those_of_the_result_files() -> None:
    assert readme.rendered(README) == README
    with pytest.raises(ValueError, match="must hold <!-- begin verdict -->"):
        readme.rendered("nothing")


@pytest.mark.slow
def test_the_first_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "README.md", "exec"), {})  # noqa: S102 - our own text
    loss, rate = map(float, capsys.readouterr().out.split())
    assert 1.4 < loss < 11
    assert 1e-6 <= rate <= 1


def test_the_agent_of_the_readme_joins(tmp_path: Path) -> None:
    file = tmp_path / "cautious.py"
    file.write_text(BLOCKS[1])
    agent = find_method(f"{file}:Cautious").make(0)
    agent.keep_action = 1
    assert [agent.act([loss]) for loss in (3.0, 2.0, 2.5, 2.4)] == [1, 1, 0, 1]  # type: ignore[arg-type]  # a list will do
