"""Charts as SVG, without a script: dots, points and curves with intervals, and confusion matrices.

A chart is drawn by the function that its `kind` names, from marks that are dicts. `x` and `y` are
figures, `x_low` and `x_high` (`y_low`, `y_high`) the ends of an interval, None where there is none;
`series` decides the colour, `label` the line of a dot, and `kind` the shape of a point or the dash
of a curve. An axis is a dict: its `title`, and a `domain` (with `log`) where the marks give none.

Colours are CSS variables, so that a chart is light or dark as its page is; a file of its own has the
light ones.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert
from markupsafe import escape

from flows.report.rows import grouped
from flows.report.table import Chart, Mark

Marks = Sequence[Mark]
Axis = dict[str, Any]

WIDTH = 360  # pixels of a chart: a phone shows it as it is, a wide screen several in a row
# pixels of a line of dots whose label has one line, and of each line more
ROW = 16
FURTHER_LINE = 12
AXIS_AND_LEGEND = 92  # pixels
LABEL_LENGTH = 26  # characters
MOST_SHAPES = 8  # of a curve: more would hide it
# The palette of Okabe and Ito, with a darker blue: 4 and 8 bits differ in lightness too.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1a1a1a",
    "muted": "#595959",
    "grid": "#dddddd",
    "blue": "#00528a",
    "vermilion": "#d55e00",
    "green": "#009e73",
    "orange": "#e69f00",
    "purple": "#cc79a7",
    "sky": "#56b4e9",
}
PAPER, INK, MUTED, GRID, *PALETTE = (f"var(--{name})" for name in LIGHT)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
PRECISIONS = ("4bit", "8bit", "bf16", "6bit", "mxfp4")  # have their own colours and shapes
FONT = "Arial, Liberation Sans, Helvetica, sans-serif"  # of the width that Vega assumes
LOOK = {
    "aria": False,  # the whole chart has one alternative text; marks need none
    "background": PAPER,
    "padding": {"left": 14, "right": 10, "top": 6, "bottom": 4},
    "style": {
        "guide-label": {"fill": INK, "fontSize": 11},
        "guide-title": {"fill": INK, "fontSize": 11, "fontWeight": "normal"},
    },
    "axis": {
        "domainColor": MUTED,
        "tickColor": MUTED,
        "gridColor": GRID,
        "labelFontSize": 10.5,
        "labelLimit": 150,
        "labelOverlap": True,
        "tickCount": 5,
    },
    "legend": {
        "orient": "bottom",
        "layout": {"bottom": {"direction": "vertical", "anchor": "start"}},
        "labelLimit": 150,
        "columns": 3,
        "columnPadding": 18,
        "symbolOpacity": 1,
        "symbolBaseFillColor": INK,
        "symbolBaseStrokeColor": INK,
        "symbolStrokeWidth": 2,
    },
    "view": {"stroke": None},
}
# svg_of adds the marks under these names.
MARKS = alt.NamedData("marks")
SHAPED = alt.NamedData("shaped")
TOP = alt.NamedData("top")
DASH = {"color": MUTED, "strokeDash": [4, 3], "strokeWidth": 1}


def drawn(chart: Chart) -> str:
    """The SVG of a chart."""
    draw: dict[str, Any] = {"dots": dots, "points": points, "curves": curves, "matrices": matrices}
    return draw[chart.kind](chart.marks, **chart.options)


def axis_of(axis: Axis) -> dict[str, Any]:
    """The scale and the title of an axis; a `log` scale needs a domain above 0.

    What lies beyond the `domain` is cut off, so that a curve leaves the chart where it does.
    """
    scale: Mark = {"zero": False}
    if domain := axis.get("domain"):
        # "nice" would widen the domain to round values.
        scale |= {"domain": list(domain), "nice": False}
    if axis.get("log"):
        scale["type"] = "log"
    return {"scale": alt.Scale(**scale), "axis": alt.Axis(title=axis["title"])}


def dots(marks: Marks, axis: Axis, lines: Iterable[float] = (), margin: float = 0) -> str:
    """A forest plot: a line for each label, in the order of the marks.

    `lines`: values to compare with; `margin`: the range around 0 that is shaded.
    """
    marks = [mark | {"label": in_lines(mark["label"])} for mark in marks]
    labels = _named(marks, "label")
    names = _named(marks)
    further_lines = max((label.count("\n") for label in labels), default=0)
    height = AXIS_AND_LEGEND + (ROW + FURTHER_LINE * further_lines) * len(labels)

    # Vega draws a list of texts as lines.
    split = "split(datum.label, '\\n')"
    label_axis = alt.Axis(
        title=None, ticks=False, domain=False, labelExpr=split, labelLineHeight=11
    )
    y = alt.Y("label:N", sort=labels, axis=label_axis)
    base = alt.Chart(MARKS).encode(y=y, color=colour_of(names))

    # Drawn in this order: a dot lies on its interval, and both on the lines.
    layers = [line_at(value, "x") for value in lines]
    if margin:
        data = alt.Data(values=[{"from": -margin, "to": margin}])
        shade = alt.Chart(data).mark_rect(color=GRID, opacity=0.6)
        layers.insert(0, shade.encode(x="from:Q", x2="to:Q"))
    layers += [
        base.mark_rule(strokeWidth=2, opacity=0.75).encode(x="x_low:Q", x2="x_high:Q"),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            # One field under one title: Vega-Lite joins the legends of colour and shape.
            x=alt.X("x:Q", **axis_of(axis)),
            shape=shape_of(names),
        ),
    ]
    # The first series of a line is drawn last, so that no other one hides it.
    return svg_of(alt.layer(*layers), height, marks=marks[::-1])


def in_lines(label: str) -> str:
    """A label in lines that a chart has room for."""
    parts = (textwrap.wrap(line, LABEL_LENGTH) for line in label.split("\n"))
    return "\n".join(line for lines in parts for line in lines)


def points(marks: Marks, x: Axis, y: Axis, lines: Iterable[float] = (), diagonal: float = 0) -> str:
    """Points with interval bars: a colour for each series, a shape for each kind.

    `lines` are values of y; `diagonal` draws y = x up to there.
    """
    kinds = _named(marks, "kind")
    base = alt.Chart(MARKS).encode(color=colour_of(_named(marks)))
    across = alt.X("x:Q", **axis_of(x))
    upward = alt.Y("y:Q", **axis_of(y))
    # One shape for all rather than one shape for two kinds.
    shape = shape_of(kinds, "kind") if len(kinds) <= len(SHAPES) else alt.Undefined

    layers = [line_at(value, "y") for value in lines]
    if diagonal:
        ends = alt.Data(values=[{"x": value, "y": value} for value in (0, diagonal)])
        layers.append(alt.Chart(ends).mark_line(**DASH, clip=True).encode(x=across, y=upward))
    bar = base.mark_rule(strokeWidth=1.5, opacity=0.45, clip=True)
    point = base.mark_point(filled=True, size=50, opacity=0.9)
    layers += [
        bar.encode(x=across, y="y_low:Q", y2="y_high:Q"),
        bar.encode(x="x_low:Q", x2="x_high:Q", y=upward),
        point.encode(x=across, y=upward, shape=shape),
    ]
    return svg_of(alt.layer(*layers), 340, marks=marks)


def curves(marks: Marks, x: Axis, y: Axis, lines: Iterable[float] = (), top: Marks = ()) -> str:
    """Curves: a colour and a shape for each series, a dash for each of two kinds, and a band where
    there is one. `top` are single points on top; `lines` are values of y.
    """
    names, kinds = _named(marks), _named(marks, "kind")
    upward = alt.Y("y:Q", **axis_of(y))
    dashes = alt.Scale(domain=kinds, range=[[1, 0], [5, 3]])
    dash = alt.StrokeDash("kind:N", scale=dashes, legend=_legend(kinds), sort=kinds)
    base = alt.Chart(MARKS).encode(x=alt.X("x:Q", **axis_of(x)), color=colour_of(names))

    layers = [line_at(value, "y") for value in lines]
    if any(mark.get("y_low") is not None for mark in marks):
        band = base.mark_area(opacity=0.18, clip=True)
        layers.append(band.encode(y="y_low:Q", y2="y_high:Q"))
    line = base.mark_line(strokeWidth=1.8, clip=True)
    layers.append(line.encode(y=upward, strokeDash=dash))
    for data, size in [(SHAPED, 32), (TOP, 90)] if top else [(SHAPED, 32)]:
        point = base.mark_point(filled=True, size=size, opacity=1, clip=True)
        layers.append(point.properties(data=data).encode(y=upward, shape=shape_of(names)))

    # A few points of each curve have its shape: where curves lie on each other, beside each other.
    shaped: list[Mark] = []
    by_curve = grouped(marks, lambda mark: (mark["series"], mark.get("kind")))
    for (series, _), curve in by_curve.items():
        step = math.ceil(len(curve) / MOST_SHAPES)
        shaped += curve[names.index(series) * step // len(names) :: step]
    return svg_of(alt.layer(*layers), 240, marks=marks, shaped=shaped, top=top)


def matrices(marks: Marks, order: Sequence[str]) -> str:
    """Confusion matrices side by side: a line for each true `label`, a column for each `decision`,
    in each cell the `cases`, the darker, the larger their `share` of the label's.
    """
    across = alt.Axis(title="decision", labelAngle=0, ticks=False)
    upward = alt.Axis(title="true label", ticks=False)
    base = alt.Chart().encode(
        x=alt.X("decision:N", sort=list(order), axis=across),
        y=alt.Y("label:N", sort=list(order), axis=upward),
    )
    shade = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 0.5]), legend=None)
    heat = base.mark_rect(color=PALETTE[5]).encode(opacity=shade)
    text = base.mark_text(color=INK).encode(text="cases:Q")
    cells = alt.layer(heat, text, data=MARKS).properties(width=115, height=95)
    side_by_side = alt.Facet("series:N", sort=_named(marks), header=alt.Header(title=None))

    # Vega-Lite fits single and layered charts to a size, and no facets.
    return svg_of(cells.facet(side_by_side, columns=2), None, marks=marks)


def _named(marks: Marks, field: str = "series") -> list[str]:
    """The series, kinds or labels of the marks, in their order."""
    return list(dict.fromkeys(mark.get(field, "") for mark in marks))


def line_at(value: float, along: str) -> Any:
    """A line across the chart where the axis `along` has this value."""
    mark = alt.Chart(alt.Data(values=[{"at": value}])).mark_rule(**DASH)
    return mark.encode(**{along: "at:Q"})


def colour_of(names: list[str]) -> Any:
    """The colour of each series."""
    scale = alt.Scale(domain=names, range=_chosen(names, PALETTE, MUTED))
    return alt.Color("series:N", scale=scale, legend=_legend(names))


def shape_of(names: list[str], field: str = "series") -> Any:
    """The shape of each series, or of each kind."""
    scale = alt.Scale(domain=names, range=_chosen(names, SHAPES, "triangle-left"))
    return alt.Shape(f"{field}:N", scale=scale, legend=_legend(names))


def _chosen(names: list[str], choices: Sequence[str], further: str) -> list[str]:
    """What each name looks like: a precision in every chart the same, other names as the next of
    the choices that are free.
    """
    of_precision = dict(zip(PRECISIONS, choices, strict=False))
    free = [choice for choice in choices if choice not in map(of_precision.get, names)]
    return [of_precision.get(name) or (free.pop(0) if free else further) for name in names]


def _legend(names: Sequence[str]) -> alt.Legend | None:
    if len(names) < 2:
        return None
    if max(map(len, names)) > LABEL_LENGTH:  # the arms of moved adapters
        return alt.Legend(title=None, columns=1, labelLimit=300)
    return alt.Legend(title=None)


def svg_of(chart: Any, height: int | None, **marks: Marks) -> str:
    """The SVG of an Altair chart, with its named data: of `height`, and `WIDTH` with everything
    around it, or of the chart's own size.

    The data are added to what Altair makes, which would look at each of them.
    """
    if height is not None:
        fit = alt.AutoSizeParams(type="fit", contains="padding")
        chart = chart.properties(width=WIDTH, height=height, autosize=fit)
    spec = chart.to_dict(validate=False)
    for name, rows in marks.items():
        without_nan = [{key: None if x != x else x for key, x in row.items()} for row in rows]
        spec.setdefault("datasets", {})[name] = without_nan

    # The empty list lets no chart load anything; without it every address is allowed.
    svg = vl_convert.vegalite_to_svg(spec, config=LOOK, allowed_base_urls=[])
    # What Vega writes for scripts, roles of parts that have no alternative text of their own, and its
    # font: that of the page or of the file holds.
    unused = r' (?:role|class|font-family|pointer-events|aria-[a-z]+)="[^"]*"'
    # In tags alone: the text of a label stays as it is.
    return re.sub(r"<[^>]+>", lambda tag: re.sub(unused, "", tag.group()), svg)


def in_page(svg: str, prefix: str, alt_text: str) -> str:
    """The SVG as a part of a page: as wide as its place, coloured by the page, with its alternative
    text; `prefix` keeps its ids apart from those of other charts.
    """
    head, content = svg.split(">", 1)
    box = head[head.index("viewBox") :]
    text = escape(alt_text)
    content = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", content)
    return f'<svg {box} role="img" aria-label="{text}"><title>{text}</title>{content}'


def as_file(svg: str, alt_text: str, colours: Mapping[str, str] = LIGHT) -> str:
    """The SVG as a file of its own, on paper of its own."""
    coloured = re.sub(r"var\(--(\w+)\)", lambda variable: colours[variable.group(1)], svg)
    head, content = coloured.split(">", 1)
    return f'{head} font-family="{FONT}"><title>{escape(alt_text)}</title>{content}'
