from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes

from transferlib.report.svg import INK, draw_svg, series_color, series_dash

URL = re.compile(r"https?:|url\(|xmlns|clip-path")


def draw(axes: Axes) -> None:
    axes.plot([0, 1, 2], [0.5, 0.6, 0.8], marker="o", color=series_color(1))
    axes.imshow([[0.0, 1.0]], extent=(0, 1, 0.5, 0.6), aspect="auto")
    axes.set_xlabel("<epoch> & $x$ 日本", color=INK)


def test_a_plot_is_well_formed_and_free_of_addresses() -> None:
    svg = draw_svg("plot", 'says "x" <y>', (300, 200), draw)
    assert URL.findall(svg) == []
    element = ET.fromstring(svg)
    assert element.attrib["aria-label"] == 'says "x" <y>'
    assert "<epoch> & $x$ 日本" in "".join(element.itertext())


def test_ids_carry_the_plots_name() -> None:
    ids = re.findall(r' id="([^"]+)"', draw_svg("one", "x", (300, 200), draw))
    assert ids
    assert all(identifier.startswith("one-") for identifier in ids)


def test_colours_are_the_pages_own() -> None:
    svg = draw_svg("plot", "x", (300, 200), draw)
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    assert re.findall(r"#f[de]000\d", svg) == []


def test_the_same_plot_is_the_same_text() -> None:
    assert draw_svg("plot", "x", (300, 200), draw) == draw_svg("plot", "x", (300, 200), draw)


def test_drawing_leaves_matplotlibs_settings_as_they_were() -> None:
    before = dict(mpl.rcParams)
    draw_svg("plot", "x", (300, 200), draw)
    assert dict(mpl.rcParams) == before


def test_more_arms_than_colours_differ_by_dash() -> None:
    styles = {(series_color(number), series_dash(number)) for number in range(32)}
    assert len(styles) == 32
