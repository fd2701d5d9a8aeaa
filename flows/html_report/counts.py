"""Charts of counts: bars to both sides of zero, and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import altair as alt

from flows.html_report.drawing import INK, PALETTE, svg_of
from flows.html_report.labels import in_lines
from flows.html_report.marks import (
    AXIS_AND_LEGEND,
    NAMES,
    ROWS,
    fitted_chart,
    legend_of,
    line_at,
    row_height,
)


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
