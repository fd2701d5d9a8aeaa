"""Charts as SVG: one look for all, colours that follow the page, and no script.

Altair's charts are drawn with placeholder colours. In a page these become CSS variables, so that a
chart is light or dark as the page is; in a file of its own they become the light colours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import altair as alt

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MOST_ENLARGED = 1.35  # in a page
WIDTH = 360  # pixels of a chart: a phone shows it as it is, a wide screen several in a row
INK = "#010203"
MUTED = "#040506"
GRID = "#070809"
# The palette of Okabe and Ito, with a darker blue: 4 and 8 bits differ in lightness too.
BLUE = "#00528a"
VERMILION = "#d55e00"
GREEN = "#009e73"
ORANGE = "#e69f00"
PURPLE = "#cc79a7"
SKY = "#56b4e9"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
PRECISIONS = ("4bit", "8bit", "bf16", "6bit", "mxfp4")
COLOUR_OF_PRECISION = dict(zip(PRECISIONS, PALETTE, strict=False))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
SHAPE_OF_PRECISION = dict(zip(PRECISIONS, SHAPES, strict=False))
FURTHER_SHAPE = "triangle-left"
DASHES: tuple[list[int], ...] = ([1, 0], [5, 3], [2, 2], [8, 2, 2, 2], [1, 3], [6, 1])
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BLUE: "--blue",
    VERMILION: "--vermilion",
    GREEN: "--green",
    ORANGE: "--orange",
    PURPLE: "--purple",
    SKY: "--sky",
}
LIGHT = {INK: "#1a1a1a", MUTED: "#595959", GRID: "#dddddd"}
FONT = "Arial, Liberation Sans, Helvetica, sans-serif"  # of the width that Vega assumes
LOOK = {
    "aria": False,  # the whole chart has one alternative text; marks need none
    "background": "transparent",
    "font": "sans-serif",
    "padding": {"left": 14, "right": 10, "top": 6, "bottom": 4},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "gridColor": GRID,
        "labelFontSize": 10.5,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 150,
    },
    "legend": {
        "orient": "bottom",
        "direction": "horizontal",
        "layout": {"bottom": {"direction": "vertical", "anchor": "start"}},
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 150,
        "columns": 3,
        "columnPadding": 18,
        "symbolOpacity": 1,
        "symbolBaseFillColor": INK,
        "symbolBaseStrokeColor": INK,
        "symbolStrokeWidth": 2,
    },
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 11},
    "view": {"stroke": None},
    "text": {"color": INK, "fontSize": 11},
    "rule": {"color": MUTED},
}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_TAG = re.compile(r"<[^>]+>")
# What Vega writes for scripts, and roles of parts that have no alternative text of their own.
_UNUSED = re.compile(r' (?:role|class|pointer-events|aria-[a-z]+)="[^"]*"')
_ID = re.compile(r'(id="|url\(#|href="#)')


def svg_of(chart: Any, **rows: Sequence[DataclassInstance]) -> str:
    """The SVG of an Altair chart, with placeholder colours; `rows` are its named data.

    The rows are added to what Altair makes, which would look at each of them.
    """
    import vl_convert

    spec = chart.to_dict(validate=False)
    datasets = {name: [asdict(row) for row in every] for name, every in rows.items()}
    spec["datasets"] = spec.get("datasets", {}) | datasets
    # The empty list lets no chart load anything; without it every address is allowed.
    svg = vl_convert.vegalite_to_svg(spec, config=LOOK, allowed_base_urls=[])
    # In tags alone: the text of a label stays as it is.
    return _TAG.sub(lambda tag: _UNUSED.sub("", tag.group()), svg)


def in_page(svg: str, prefix: str, alt_text: str) -> str:
    """The SVG as a part of a page: as wide as its place, coloured by the page, with its alternative
    text; `prefix` keeps its ids apart from those of other charts.
    """
    from markupsafe import escape

    coloured = _COLOUR.sub(lambda match: _variable(match.group()), svg)
    prefixed = _ID.sub(lambda match: f"{match.group()}{prefix}-", coloured)
    width, height = _size(prefixed)
    head = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt_text)}" '
        f'style="max-width: {MOST_ENLARGED * width:.0f}px">'
        f"<title>{escape(alt_text)}</title>"
    )

    return head + _without_head(prefixed)


def as_file(svg: str, alt_text: str) -> str:
    """The SVG as a file of its own, on white."""
    from markupsafe import escape

    width, height = _size(svg)
    light = _COLOUR.sub(lambda match: LIGHT.get(match.group(), match.group()), svg)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{FONT}"><title>{escape(alt_text)}</title>'
        f'<rect width="{width}" height="{height}" fill="white"/>'
    )

    return head + _without_head(light)


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour


def _size(svg: str) -> tuple[int, int]:
    match = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert match is not None, "Vega writes the size of a chart"
    return round(float(match.group(1))), round(float(match.group(2)))


def _without_head(svg: str) -> str:
    # Without Vega's font, that of the page holds, or that of the file's head.
    return re.sub(r' font-family="sans-serif"', "", svg[svg.index(">") + 1 :])


def colour_of(names: list[str]) -> alt.Scale:
    return alt.Scale(domain=names, range=_chosen(names, COLOUR_OF_PRECISION, PALETTE, MUTED))


def shape_of(names: list[str]) -> alt.Scale:
    return alt.Scale(domain=names, range=_chosen(names, SHAPE_OF_PRECISION, SHAPES, FURTHER_SHAPE))


def _chosen(
    names: list[str], of_precision: Mapping[str, str], choices: Sequence[str], further: str
) -> list[str]:
    """What each name looks like: a precision in every chart the same, other names as the next of
    the choices that are free.
    """
    free = [choice for choice in choices if choice not in map(of_precision.get, names)]
    return [of_precision.get(name) or (free.pop(0) if free else further) for name in names]


def dash_of(names: list[str]) -> alt.Scale:
    return alt.Scale(domain=names, range=[DASHES[i % len(DASHES)] for i in range(len(names))])
