"""matplotlib figures as inline SVG: no address, no shared ids, colours from the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

NUM_SERIES_COLORS = 8
POINTS_PER_INCH = 72

INK, MUTED, GRID, SURFACE, ACCENT = "#fd0001", "#fd0002", "#fd0003", "#fd0004", "#fd0005"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    SURFACE: "--surface",
    ACCENT: "--accent",
    **{f"#fe000{number}": f"--series-{number}" for number in range(NUM_SERIES_COLORS)},
}
"""Colours that stand for the page's own, so that a figure follows its light, dark and print schemes."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "transferlib",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def series_color(number: int) -> str:
    """Return the colour of the n-th arm; they repeat after `NUM_SERIES_COLORS`."""
    return f"#fe000{number % NUM_SERIES_COLORS}"


def series_dash(number: int) -> str:
    """Return a line style that sets arms of the same colour apart."""
    return ("-", "--", ":", "-.")[number // NUM_SERIES_COLORS % 4]


def draw_svg(name: str, label: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> Markup:
    """Draw one plot and return it as an `<svg>` element for an HTML page.

    Args:
        name: Unique on the page; letters, digits and hyphens.
        label: What it shows, for those who cannot see it.
        size: Width and height, points.
        draw: Puts the content on axes; nothing may lie outside of them, since nothing is clipped.
    """
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A class name in a script that matplotlib's font lacks: the browser has fonts of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(size[0] / POINTS_PER_INCH, size[1] / POINTS_PER_INCH), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        text = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    return Markup(_inline(text.getvalue(), name, label, size))


def _inline(svg: str, name: str, label: str, size: tuple[float, float]) -> str:
    """Cut what a document has and an element does not need: prolog, name spaces, metadata, style, clip paths."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<clipPath.*?</clipPath>", "", body, flags=re.S)
    body = re.sub(r' clip-path="[^"]*"|<!--.*?-->', "", body, flags=re.S)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"', body))
    body = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", body)
    for number, identifier in enumerate(sorted(used)):
        body = body.replace(f'"{identifier}"', f'"{name}-{number}"').replace(f'"#{identifier}"', f'"#{name}-{number}"')
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*(; )?", "", body)
    body = re.sub(r"\n\s*|<defs>\s*</defs>", lambda match: " " if match[0].isspace() else "", body)
    return (
        f'<svg class="plot" viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )
