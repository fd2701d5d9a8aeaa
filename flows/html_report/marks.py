"""The kinds of charts: dots with intervals by name, points in a plane, curves, bars, a table of counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
    drawn,
    shape_of,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROW = 17  # pixels of a line of dots or bars
INTERVAL = {"strokeWidth": 2, "opacity": 0.75}


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
class CurvePoint:
    """A point of a curve with the band around it; `kind` decides how the line is dashed."""

    series: str
    x: float | None
    y: float | None
    low: float | None = None
    high: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Axis:
    """What an axis shows; `log` scales need values above 0. `zero`: begin there."""

    title: str
    domain: tuple[float, float] | None = None
    log: bool = False
    zero: bool = False
    format: str | None = None

    @property
    def scale(self) -> alt.Scale:
        options: dict[str, Any] = {"type": "log"} if self.log else {"zero": self.zero}
        if self.domain:
            options |= {"domain": list(self.domain), "clamp": True, "nice": False}
        return alt.Scale(**options)

    @property
    def axis(self) -> alt.Axis:
        options: dict[str, Any] = {"format": self.format} if self.format else {}
        return alt.Axis(title=self.title, tickCount=5, labelOverlap=True, **options)


def _data(rows: Sequence[DataclassInstance]) -> alt.Data:
    return alt.Data(values=[asdict(row) for row in rows])


def _line(value: float, along: str, dash: Sequence[int] = (4, 3)) -> alt.Chart:
    """A line across the chart where the axis `along` has this value."""
    mark = alt.Chart(alt.Data(values=[{"at": value}])).mark_rule(strokeDash=list(dash), color=MUTED)
    return mark.encode(**{along: "at:Q"})


def _fitted(chart: Any, height: int) -> str:
    fit = alt.AutoSizeParams(type="fit", contains="padding")
    return drawn(chart.properties(width=WIDTH, height=height, autosize=fit))


def dots(
    rows: Sequence[Dot],
    axis: Axis,
    names: list[str],
    lines: Sequence[float] = (),
    within: tuple[float, float] | None = None,
    overlaid: bool = False,
) -> str:
    """A forest plot: a line for each label, in the order of `rows`; `names` are the series.

    `lines`: values to compare with; `within`: a shaded range, such as a margin. Dots of one label
    stand below each other, or on one line if `overlaid`.
    """
    labels = list(dict.fromkeys(row.label for row in rows))
    y = alt.Y("label:N", sort=labels, axis=alt.Axis(title=None, ticks=False, domain=False))
    base = alt.Chart(_data(rows)).encode(
        y=y, yOffset=alt.Undefined if overlaid else _offset(rows, names)
    )
    colour = alt.Color("series:N", scale=colour_of(names), legend=_legend(names))
    x = alt.X("value:Q", scale=axis.scale, axis=axis.axis)
    interval = base.mark_rule(**INTERVAL, clip=True).encode(
        x=alt.X("low:Q", scale=axis.scale), x2="high:Q", color=colour
    )
    point = base.mark_point(filled=True, size=45, opacity=1, clip=True).encode(
        x=x,
        color=colour,
        shape=alt.Shape("series:N", scale=shape_of(names), legend=_legend(names)),
    )
    behind = [_shade(within)] if within else []
    layers = [*behind, *(_line(value, "x") for value in lines), interval, point]
    per_label = 1 if overlaid else _most(rows)
    return _fitted(alt.layer(*layers), 70 + max(ROW, 11 * per_label) * len(labels))


def _most(rows: Sequence[Dot]) -> int:
    """Dots of the fullest line."""
    labels = [row.label for row in rows]
    return max((labels.count(label) for label in set(labels)), default=1)


def _offset(rows: Sequence[Dot], names: list[str]) -> Any:
    if _most(rows) < 2:
        return alt.Undefined
    return alt.YOffset("series:N", scale=alt.Scale(domain=names))


def _shade(within: tuple[float, float]) -> alt.Chart:
    data = alt.Data(values=[{"from": within[0], "to": within[1]}])
    mark = alt.Chart(data).mark_rect(color=GRID, opacity=0.6)
    return mark.encode(x="from:Q", x2="to:Q")


def _legend(names: list[str], title: str | None = None) -> alt.Legend | None:
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
    base = alt.Chart(_data(rows))
    colour = alt.Color("series:N", scale=colour_of(names), legend=_legend(names))
    across = alt.X("x:Q", scale=x.scale, axis=x.axis)
    upward = alt.Y("y:Q", scale=y.scale, axis=y.axis)
    shape = alt.Shape("kind:N", scale=shape_of(kinds), legend=_legend(kinds))
    bars = {"strokeWidth": 1.5, "opacity": 0.45}
    layers = [
        *(_line(value, "y") for value in lines),
        base.mark_rule(**bars).encode(x=across, y="y_low:Q", y2="y_high:Q", color=colour),
        base.mark_rule(**bars).encode(x="x_low:Q", x2="x_high:Q", y=upward, color=colour),
        base.mark_point(filled=True, size=50, opacity=0.9).encode(
            x=across, y=upward, color=colour, shape=shape
        ),
    ]
    return _fitted(alt.layer(*layers), 340)


def curves(
    rows: Sequence[CurvePoint],
    x: Axis,
    y: Axis,
    names: list[str],
    kinds: Sequence[str] = ("",),
    lines: Sequence[float] = (),
    marked: Sequence[CurvePoint] = (),
    diagonal: bool = False,
) -> str:
    """Curves: a colour for each series, a dash for each kind, a band where there is one.

    `marked` are single points on top; `diagonal` draws y = x; `lines` are values of y.
    """
    base = alt.Chart(_data(rows))
    colour = alt.Color("series:N", scale=colour_of(names), legend=_legend(names))
    across = alt.X("x:Q", scale=x.scale, axis=x.axis)
    upward = alt.Y("y:Q", scale=y.scale, axis=y.axis)
    dashed = alt.StrokeDash(
        "kind:N", scale=dash_of(list(kinds)), legend=_legend(list(kinds)), sort=list(kinds)
    )
    layers: list[Any] = [_line(value, "y") for value in lines]
    if diagonal and x.domain:
        ends = [{"x": value, "y": value} for value in x.domain]
        layers.append(
            alt.Chart(alt.Data(values=ends))
            .mark_line(color=MUTED, strokeDash=[4, 3], strokeWidth=1, clip=True)
            .encode(x=across, y=upward)
        )
    if any(row.low is not None for row in rows):
        band = base.mark_area(opacity=0.18, clip=True)
        layers.append(band.encode(x=across, y=alt.Y("low:Q"), y2="high:Q", color=colour))
    line = base.mark_line(strokeWidth=1.8, clip=True, point={"size": 12} if diagonal else False)
    layers.append(line.encode(x=across, y=upward, color=colour, strokeDash=dashed))
    if marked:
        flag = alt.Chart(_data(marked)).mark_point(filled=True, size=70, opacity=1)
        layers.append(flag.encode(x=across, y=upward, color=colour))
    return _fitted(alt.layer(*layers), 240)


@dataclass(frozen=True)
class Bar:
    """A count to the left (negative) or right of zero, in the line `label`."""

    label: str
    series: str
    value: float


def bars(rows: Sequence[Bar], title: str, names: list[str]) -> str:
    """Counts to both sides of zero; `names` are the series, the left one first."""
    labels = list(dict.fromkeys(row.label for row in rows))
    across = alt.X(
        "value:Q", axis=alt.Axis(title=title, tickCount=5, format="d", labelExpr="abs(datum.value)")
    )
    y = alt.Y("label:N", sort=labels, axis=alt.Axis(title=None, ticks=False, domain=False))
    scale = alt.Scale(domain=names, range=[PALETTE[1], PALETTE[0]])
    mark = alt.Chart(_data(rows)).mark_bar(height={"band": 0.7})
    chart = mark.encode(
        x=across, y=y, color=alt.Color("series:N", scale=scale, legend=_legend(names))
    )
    return _fitted(alt.layer(chart, _line(0, "x", (1, 0))), 80 + ROW * len(labels))


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
    shade = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 0.75]), legend=None)
    heat = base.mark_rect(color=PALETTE[5]).encode(opacity=shade)
    text = base.mark_text(color=INK).encode(text="cases:Q")
    cells = alt.layer(heat, text, data=_data(rows)).properties(width=115, height=95)
    header = alt.Header(title=None)
    return drawn(cells.facet(alt.Facet("series:N", sort=names, header=header), columns=2))
