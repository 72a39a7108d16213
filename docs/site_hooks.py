"""Hooks of mkdocs for the documentation site.

`on_files` publishes pictures of benchmarks/results under ``assets/``. `on_page_content`
marks table cells for ``style.css``. `DoctestBlocks` fences the doctests of docstrings,
because Markdown would render ``>>>`` as nested quotes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PICTURES = {
    "curves.svg": "comparison/tiny/curves.svg",
    "controller_list_1.svg": "controller/tuning_free/tuning_free.svg",
    "controller_list_2.svg": "controller/tuning_free_v2/tuning_free.svg",
    "controller_list_3.svg": "controller/tuning_free_v3/tuning_free.svg",
    "law_shakespeare_tiny.svg": "surrogate/shakespeare-tiny.svg",
}
CELL = re.compile(r"<td>(?P<content>.*?)</td>", flags=re.DOTALL)
NUMBERS = re.compile(r"[-+±]?\d[\d.,%]*(?:(?: to | ± | )?[-+(]*[\d.,%]+\)?)*")
MIN_PROSE_LENGTH = 32  # characters
FENCE = "```"
PROMPT = re.compile(r"\s*>>> ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures to the site's files."""
    for name, path in PICTURES.items():
        picture = str(RESULTS / path)
        files.append(File.generated(config, f"assets/{name}", abs_src_path=picture))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Mark table cells: numbers must not wrap, prose needs a minimum width."""
    return CELL.sub(_marked_cell, html)


def _marked_cell(cell: re.Match[str]) -> str:
    text = re.sub(r"<[^>]*>", "", cell["content"])
    if NUMBERS.fullmatch(text):
        return f'<td class="number">{cell["content"]}</td>'
    if len(text) > MIN_PROSE_LENGTH:
        return f'<td class="prose">{cell["content"]}</td>'
    return cell[0]


class DoctestBlocks(griffe.Extension):
    """Puts every doctest of a docstring into a fence."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of `obj`."""
        if obj.docstring is not None:
            obj.docstring.value = with_fences(obj.docstring.value)


def with_fences(docstring: str) -> str:
    """Return `docstring` with each doctest in its own fence."""
    lines: list[str] = []
    in_fence = in_doctest = False
    for line in docstring.splitlines():
        if in_doctest and not line.strip():
            lines.append(FENCE)
            in_doctest = False
        elif not in_doctest and line.strip().startswith(FENCE):
            in_fence = not in_fence
        elif not in_fence and not in_doctest and PROMPT.match(line):
            lines += ["", f"{FENCE}pycon"]
            in_doctest = True
        lines.append(line)
    return "\n".join([*lines, FENCE] if in_doctest else lines)
