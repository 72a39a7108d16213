"""The style of the figures: SVG inside a page, or in a file of its own.

Text and axes take the colour and font of the page, so that they are readable on light
and on dark. A method has the same colour in all figures. The same data give the same
bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#010101"  # while drawing; in the SVG it becomes the page's own colour
FAINT = "#7d8590"  # reads on white and on black
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.7,
}
LONGEST_LABEL = 32  # characters
FIRST_PART = 8  # of them, where a longer one is shortened
Painter = Callable[[Axes], None]


@dataclass(frozen=True)
class LineStyle:
    """The line of a method, the same in all figures."""

    color: str
    dashed: bool = False

    @property
    def css(self) -> str:
        """The same colour as CSS writes it."""
        return "currentColor" if self.color == INK else self.color


def draw(title: str, size: tuple[float, float], *paint: Painter) -> str:
    """Return an SVG element with one panel per painter."""
    with rc_context(STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=size, layout="constrained")
        [row] = figure.subplots(1, len(paint), squeeze=False)
        for axes, painter in zip(row, paint, strict=True):
            painter(axes)
        text = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(text, metadata=no_metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Ids and styles of a figure would apply to the whole page.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"<]*(; )?", "", svg)
    head = f'<svg role="img" aria-label="{escape(title)}" font-family="{FONTS}" '
    return svg.replace("<svg ", head + 'stroke-linejoin="round" ', 1)


def shortened(label: str) -> str:
    """Return `label`; a long one loses its middle."""
    if len(label) <= LONGEST_LABEL:
        return label
    return f"{label[:FIRST_PART]}…{label[FIRST_PART + 1 - LONGEST_LABEL :]}"
