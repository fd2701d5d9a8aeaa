"""Kinds of charts: dots, points and curves with intervals; bars and matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import altair as alt

from flows.html_report.drawing import (
    GRID,
    INK,
    MUTED,
    PALETTE,
    WIDTH,
    colour_of,
    dash_of,
    shape_of,
    svg_of,
)
from flows.html_report.study import in_lines

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# pixels of a line of dots or bars whose label has one line, and of each line more
ROW = 16
FURTHER_LINE = 12
AXIS_AND_LEGEND = 92  # pixels
# Vega draws a list of texts as lines.
LABEL_LINES = "split(datum.label, '\\n')"
INTERVAL = {"strokeWidth": 2, "opacity": 0.75}
MOST_SHAPES = 8  # of a curve: more would hide it


# svg_of adds the rows under these names.
ROWS = alt.NamedData("rows")
SHAPED = alt.NamedData("shaped")
MARKED = alt.NamedData("marked")
NAMES = alt.Axis(title=None, ticks=False, domain=False, labelExpr=LABEL_LINES, labelLineHeight=11)


@dataclass(frozen=True)
class Dot:
    """A figure with its interval, in the line `label`."""

    label: str
    series: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PlanePoint:
    """A point with its intervals along both axes; those that are None are not drawn."""

    series: str
    x: float | None
    y: float | None
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class BandPoint:
    """A point of a curve with the band around it; `kind` decides how the line is dashed."""

    series: str
    x: float | None
    y: float | None
    low: float | None = None
    high: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Axis:
    """What an axis shows; `log` scales need values above 0. `zero`: begin there.

    What lies beyond the `domain` is cut off, so that a curve leaves the chart where it does.
    """

    title: str
    domain: tuple[float, float] | None = None
    log: bool = False
    zero: bool = False

    @classmethod
    def of_shares(cls, title: str, values: Iterable[float | None]) -> Axis:
        """An axis of shares, from a tenth below the smallest to a tenth above the largest."""
        numbers = [value for value in values if value is not None]
        low = min(numbers, default=0.0)
        high = max(numbers, default=1.0)
        return cls(title, (math.floor(10 * low) / 10, min(1.0, math.ceil(10 * high + 1e-9) / 10)))

    @property
    def scale(self) -> alt.Scale:
        options: dict[str, Any] = {"type": "log"} if self.log else {"zero": self.zero}
        if self.domain:
            # "nice" would widen the domain to round values.
            options |= {"domain": list(self.domain), "nice": False}
        return alt.Scale(**options)

    @property
    def axis(self) -> alt.Axis:
        options: dict[str, Any] = {"values": self._ticks} if self.log and self.domain else {}
        return alt.Axis(title=self.title, tickCount=5, labelOverlap=True, **options)

    @property
    def _ticks(self) -> list[float]:
        """Round values of a logarithmic axis."""
        assert self.domain is not None
        low, high = self.domain
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [factor * 10.0**decade for decade in decades for factor in (1, 1.5, 2, 3, 5, 7)]
        return [value for value in values if low <= value <= high]


def line_at(value: float, along: str, dash: Sequence[int] = (4, 3)) -> alt.Chart:
    """A line across the chart where the axis `along` has this value."""
    mark = alt.Chart(alt.Data(values=[{"at": value}])).mark_rule(strokeDash=list(dash), color=MUTED)
    return mark.encode(**{along: "at:Q"})


def fitted_chart(chart: Any, height: int, **rows: Sequence[DataclassInstance]) -> str:
    """A chart of `WIDTH` with everything around it; `rows` are its named data."""
    fit = alt.AutoSizeParams(type="fit", contains="padding")
    return svg_of(chart.properties(width=WIDTH, height=height, autosize=fit), **rows)


def dots(
    rows: Sequence[Dot],
    axis: Axis,
    names: list[str],
    lines: Sequence[float] = (),
    shaded_range: tuple[float, float] | None = None,
    overlaid: bool = False,
) -> str:
    """A forest plot: a line for each label, in the order of `rows`; `names` are the series.

    `lines`: values to compare with; `shaded_range`: a shaded range, such as a margin. Dots of one
    label stand below each other, or on one line if `overlaid`.
    """
    rows = [replace(row, label=in_lines(row.label)) for row in rows]
    labels = list(dict.fromkeys(row.label for row in rows))
    y = alt.Y("label:N", sort=labels, axis=NAMES)
    base = alt.Chart(ROWS).encode(y=y, yOffset=alt.Undefined if overlaid else _offset(rows, names))
    colour = alt.Color("series:N", scale=colour_of(names), legend=legend_of(names))
    x = alt.X("value:Q", scale=axis.scale, axis=axis.axis)
    interval = base.mark_rule(**INTERVAL, clip=True).encode(
        x=alt.X("low:Q", scale=axis.scale), x2="high:Q", color=colour
    )
    point = base.mark_point(filled=True, size=45, opacity=1).encode(
        x=x,
        color=colour,
        # One field under one title: Vega-Lite joins the legends of colour and shape.
        shape=alt.Shape("series:N", scale=shape_of(names), legend=legend_of(names)),
    )
    behind = [_shade(shaded_range)] if shaded_range else []
    # Drawn in this order: a dot lies on its interval, and both on the lines.
    layers = [*behind, *(line_at(value, "x") for value in lines), interval, point]
    per_label = 1 if overlaid else _most(rows)
    height = AXIS_AND_LEGEND + max(row_height(labels), 11 * per_label) * len(labels)

    return fitted_chart(alt.layer(*layers), height, rows=rows)


def row_height(labels: list[str]) -> int:
    return ROW + FURTHER_LINE * max((label.count("\n") for label in labels), default=0)


def _most(rows: Sequence[Dot]) -> int:
    """Dots of the fullest line."""
    labels = [row.label for row in rows]
    return max((labels.count(label) for label in set(labels)), default=1)


def _offset(rows: Sequence[Dot], names: list[str]) -> Any:
    if _most(rows) < 2:
        return alt.Undefined
    return alt.YOffset("series:N", scale=alt.Scale(domain=names))


def _shade(shaded_range: tuple[float, float]) -> alt.Chart:
    data = alt.Data(values=[{"from": shaded_range[0], "to": shaded_range[1]}])
    mark = alt.Chart(data).mark_rect(color=GRID, opacity=0.6)
    return mark.encode(x="from:Q", x2="to:Q")


def legend_of(names: list[str], title: str | None = None) -> alt.Legend | None:
    return alt.Legend(title=title) if len(names) > 1 else None


def points(
    rows: Sequence[PlanePoint],
    x: Axis,
    y: Axis,
    names: list[str],
    kinds: list[str],
    lines: Sequence[float] = (),
) -> str:
    """Points with interval bars: a colour for each series, a shape for each kind; `lines` are
    values of y.
    """
    base = alt.Chart(ROWS)
    colour = alt.Color("series:N", scale=colour_of(names), legend=legend_of(names))
    across = alt.X("x:Q", scale=x.scale, axis=x.axis)
    upward = alt.Y("y:Q", scale=y.scale, axis=y.axis)
    shape = alt.Shape("kind:N", scale=shape_of(kinds), legend=legend_of(kinds))
    bars = {"strokeWidth": 1.5, "opacity": 0.45, "clip": True}
    layers = [
        *(line_at(value, "y") for value in lines),
        base.mark_rule(**bars).encode(x=across, y="y_low:Q", y2="y_high:Q", color=colour),
        base.mark_rule(**bars).encode(x="x_low:Q", x2="x_high:Q", y=upward, color=colour),
        base.mark_point(filled=True, size=50, opacity=0.9).encode(
            x=across, y=upward, color=colour, shape=shape
        ),
    ]

    return fitted_chart(alt.layer(*layers), 340, rows=rows)


def curves(
    rows: Sequence[BandPoint],
    x: Axis,
    y: Axis,
    names: list[str],
    kinds: Sequence[str] = ("",),
    lines: Sequence[float] = (),
    marked: Sequence[BandPoint] = (),
    diagonal: bool = False,
) -> str:
    """Curves: a colour and a shape for each series, a dash for each kind, a band where there is one.

    `marked` are single points on top; `lines` are values of y. `diagonal` draws y = x, and an
    interval and a shape at each point in place of the band.
    """
    base = alt.Chart(ROWS)
    colour = alt.Color("series:N", scale=colour_of(names), legend=legend_of(names))
    across = alt.X("x:Q", scale=x.scale, axis=x.axis)
    upward = alt.Y("y:Q", scale=y.scale, axis=y.axis)
    dashed = alt.StrokeDash(
        "kind:N", scale=dash_of(list(kinds)), legend=legend_of(list(kinds)), sort=list(kinds)
    )
    layers: list[Any] = [line_at(value, "y") for value in lines]

    if diagonal and x.domain:
        ends = [{"x": value, "y": value} for value in x.domain]
        layers.append(
            alt.Chart(alt.Data(values=ends))
            .mark_line(color=MUTED, strokeDash=[4, 3], strokeWidth=1, clip=True)
            .encode(x=across, y=upward)
        )

    if any(row.low is not None for row in rows):
        area = base.mark_area(opacity=0.18, clip=True)
        band = base.mark_rule(**INTERVAL, clip=True) if diagonal else area
        limits = {"y": alt.Y("low:Q", scale=y.scale), "y2": "high:Q"}
        layers.append(band.encode(x=across, color=colour, **limits))

    line = base.mark_line(strokeWidth=1.8, clip=True)
    layers.append(line.encode(x=across, y=upward, color=colour, strokeDash=dashed))
    shape = alt.Shape("series:N", scale=shape_of(names), legend=legend_of(names))
    sizes = [(SHAPED, 32), (MARKED, 90)] if marked else [(SHAPED, 32)]
    for data, size in sizes:
        point = alt.Chart(data).mark_point(filled=True, size=size, opacity=1, clip=True)
        layers.append(point.encode(x=across, y=upward, color=colour, shape=shape))

    shaped = rows if diagonal else _shaped(rows, names)
    return fitted_chart(alt.layer(*layers), 240, rows=rows, shaped=shaped, marked=marked)


def _shaped(rows: Sequence[BandPoint], names: list[str]) -> list[BandPoint]:
    """The points of each curve that have its shape: few, and where curves lie on each other, those
    of two series beside each other.
    """
    by_curve: dict[tuple[str, str], list[BandPoint]] = {}
    for row in rows:
        by_curve.setdefault((row.series, row.kind), []).append(row)

    shaped = []
    for (series, _), curve in by_curve.items():
        step = math.ceil(len(curve) / MOST_SHAPES)
        shaped += curve[names.index(series) * step // len(names) :: step]

    return shaped


@dataclass(frozen=True)
class Bar:
    """A count to the left (negative) or right of zero, in the line `label`."""

    label: str
    series: str
    value: float


def bars(rows: Sequence[Bar], title: str, names: list[str]) -> str:
    """Counts to both sides of zero; `names` are the series, the left one first."""
    rows = [replace(row, label=in_lines(row.label)) for row in rows]
    labels = list(dict.fromkeys(row.label for row in rows))
    across = alt.X(
        "value:Q",
        axis=alt.Axis(title=title, tickCount=5, format="d", labelExpr="abs(datum.value)"),
        stack=None,  # counts of one label are never added up
    )
    y = alt.Y("label:N", sort=labels, axis=NAMES)
    scale = alt.Scale(domain=names, range=[PALETTE[1], PALETTE[0]])
    mark = alt.Chart(ROWS).mark_bar(height={"band": 0.7})
    chart = mark.encode(
        x=across, y=y, color=alt.Color("series:N", scale=scale, legend=legend_of(names))
    )
    height = AXIS_AND_LEGEND + row_height(labels) * len(labels)

    # The dash (1, 0) is a whole line.
    return fitted_chart(alt.layer(chart, line_at(0, "x", (1, 0))), height, rows=rows)


@dataclass(frozen=True)
class Cell:
    """How many cases of one label were decided so, and what share of the label's cases that is."""

    series: str
    label: str
    decision: str
    cases: int
    share: float


def matrices(rows: Sequence[Cell], names: list[str], order: Sequence[str]) -> str:
    """Confusion matrices side by side: a line for each true label, a column for each decision."""
    base = alt.Chart().encode(
        x=alt.X(
            "decision:N",
            sort=list(order),
            axis=alt.Axis(title="decision", labelAngle=0, ticks=False),
        ),
        y=alt.Y("label:N", sort=list(order), axis=alt.Axis(title="true label", ticks=False)),
    )
    shade = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 0.5]), legend=None)
    heat = base.mark_rect(color=PALETTE[5]).encode(opacity=shade)
    text = base.mark_text(color=INK).encode(text="cases:Q")
    cells = alt.layer(heat, text, data=ROWS).properties(width=115, height=95)
    side_by_side = alt.Facet("series:N", sort=names, header=alt.Header(title=None))

    # Not fitted_chart: Vega-Lite fits single and layered charts to a size, and no facets.
    return svg_of(cells.facet(side_by_side, columns=2), rows=rows)
