"""What the documentation site adds to mkdocs.

`on_files` and `on_page_markdown` put pictures of benchmarks/results under ``assets/``,
without a copy in the repository. `on_page_content` marks table cells for ``style.css``.
`DoctestBlocks` fences the doctests of docstrings, which Markdown would read as nested
quotes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# As a page names a picture, so that it shows in the repository too.
PICTURE = re.compile(r"\.\./(?P<path>benchmarks/results/[\w/.-]+\.svg)")
CELL = re.compile(r"<td>(?P<content>.*?)</td>", flags=re.DOTALL)
NUMBERS = re.compile(r"[-+±]?\d[\d.,%]*(?:(?: to | ± | )?[-+(]*[\d.,%]+\)?)*")
LONG = 32  # characters of a cell of prose
FENCE = "```"
PROMPT = re.compile(r"\s*>>> ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures that pages show to the site's files."""
    pages = (page.content_string for page in files.documentation_pages())
    paths = {match["path"] for page in pages for match in PICTURE.finditer(page)}
    for path in sorted(paths):
        picture = str(ROOT / path)
        files.append(File.generated(config, f"assets/{path}", abs_src_path=picture))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point at the pictures where the site has them."""
    return PICTURE.sub(r"assets/\g<path>", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Mark cells of numbers, which must not wrap, and of prose, which need room."""
    return CELL.sub(_marked_cell, html)


def _marked_cell(cell: re.Match[str]) -> str:
    text = re.sub(r"<[^>]*>", "", cell["content"])
    if NUMBERS.fullmatch(text):
        return f'<td class="number">{cell["content"]}</td>'
    if len(text) > LONG:
        return f'<td class="prose">{cell["content"]}</td>'
    return cell[0]


class DoctestBlocks(griffe.Extension):
    """Fences every doctest of a docstring as a block of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of `obj`."""
        if obj.docstring is not None:
            obj.docstring.value = with_fences(obj.docstring.value)


def with_fences(docstring: str) -> str:
    """Return `docstring` with each doctest in a fence of its own."""
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
