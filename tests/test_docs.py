"""Every block of Python in the documentation runs, page by page."""

from __future__ import annotations

from pathlib import Path

import pytest
from mktestdocs import check_md_file

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path) -> None:
    check_md_file(page, memory=True)


def test_there_are_pages_with_code() -> None:
    names = {page.stem for page in WITH_CODE}
    assert names == {"agents", "bring_your_own", "controller", "mdp", "simulated"}
