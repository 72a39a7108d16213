"""The report in a real browser: page widths, colour schemes, sorting."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.helpers.records import small_comparison, small_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
]
READABLE = 4.5  # least contrast of text, WCAG 2 level AA


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    small_report(folder, small_comparison(envs=("markov", "text8")))
    return folder / "report.html"


def opened(browser: Browser, report: Path, width: int, scheme: str) -> Page:
    """Open the report; any message on the console, or any request, is a failure."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(report.as_uri())
    assert heard == [report.as_uri()]
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_everything_fits_and_can_be_read(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    page = opened(browser, report, width, scheme)
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow == 0
    paper, ink = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    assert (luminance(paper) < 0.5) == (scheme == "dark")
    light, dark = sorted((luminance(paper), luminance(ink)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > READABLE
    pictures = page.locator("svg")
    assert pictures.count() > 3
    for number in range(pictures.count()):
        box = pictures.nth(number).bounding_box()
        assert box is not None
        assert box["width"] > 100
        assert box["height"] > 50


def test_a_click_on_a_column_head_sorts(browser: Browser, report: Path) -> None:
    page = opened(browser, report, 1280, "light")
    table = page.locator("table.sortable").first
    heads = table.locator("thead th").all_inner_texts()
    column = 1 + next(n for n, text in enumerate(heads) if "test loss" in text)
    cells = table.locator(f"tbody tr > :nth-child({column})")
    head = table.locator(f"thead th:nth-child({column})")
    for direction, reverse in (("ascending", False), ("descending", True)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == direction
        values = cells.evaluate_all("cells => cells.map(c => c.dataset.value)")
        known = [float(value) for value in values if value]
        assert len(set(known)) > 2
        assert known == sorted(known, reverse=reverse)
        assert all(values[: len(known)])  # what is missing stands last


def luminance(color: str) -> float:
    """Return WCAG's relative luminance of a computed ``rgb(r, g, b)``."""
    parts = color[color.index("(") + 1 : color.index(")")].split(",")[:3]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (float(part) / 255 for part in parts)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
