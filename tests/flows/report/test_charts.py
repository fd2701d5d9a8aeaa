"""Every kind of chart is one that Altair accepts: the report itself is made without its checks."""

from __future__ import annotations

import pytest

from flows.report import charts
from flows.report.charts import PALETTE, SHAPES, as_file, colour_of, in_page, shape_of
from flows.report.table import Chart

NAMES = ["4bit", "8bit"]
BLUE, VERMILION = PALETTE[:2]


@pytest.fixture
def specs(monkeypatch) -> list[dict]:
    """The specifications of the charts that a test makes, which are not drawn."""
    specifications: list[dict] = []

    def svg_of(chart, height, **marks):
        specifications.append(chart.to_dict() | {"height": height})
        return ""

    monkeypatch.setattr(charts, "svg_of", svg_of)
    return specifications


def test_charts_have_the_marks_of_their_kind(specs):
    dots = [{"label": label, "series": "4bit", "x": 1.0, "x_low": 0.5, "x_high": 1.5} for label in "ab"]
    charts.drawn(Chart("dots", "", dots, {"axis": {"title": "points"}, "lines": [0, -2], "margin": 2}))
    curves = [{"series": "4bit", "kind": "train", "x": x, "y": x / 2, "y_low": x / 3, "y_high": x} for x in (0.1, 0.2)]
    x, y = {"title": "MB", "domain": (5, 200), "log": True}, {"title": "ED recall"}
    charts.curves(curves, {"title": "x", "domain": (0, 1)}, y, [0], top=curves[:1])
    charts.points(curves, x, y, [0.95], diagonal=1)
    kinds = [[layer["mark"]["type"] for layer in spec["layer"]] for spec in specs]
    assert kinds == [
        ["rect", "rule", "rule", "rule", "point"],
        ["rule", "area", "line", "point", "point"],
        ["rule", "line", "rule", "rule", "point"],
    ]
    assert specs[2]["layer"][-1]["encoding"]["x"]["scale"]["type"] == "log"
    assert specs[0]["height"] == charts.AXIS_AND_LEGEND + 2 * charts.ROW

    cells = [{"series": name, "label": "ED", "decision": "GP", "cases": 3, "share": 0.2} for name in NAMES]
    charts.matrices(cells, ["ED", "GP", "HOME"])
    assert "facet" in specs[3]


def test_a_curve_leaves_the_chart_where_it_does(specs):
    """Pinned to the edge, a model far below everybody else would stand beside one that is just below the edge."""
    marks = [{"series": "4bit", "x": 0.3, "y": -0.04}, {"series": "4bit", "x": 0.5, "y": -0.46}]
    charts.curves(marks, {"title": "threshold"}, {"title": "net benefit", "domain": (-0.1, 0.4)}, top=marks)
    layers = specs[0]["layer"]
    assert layers[0]["encoding"]["y"]["scale"] == {"zero": False, "domain": [-0.1, 0.4], "nice": False}
    assert [layer["mark"]["clip"] for layer in layers] == [True] * 3


def test_a_precision_has_its_colour_and_its_shape_in_every_chart():
    def chosen(channel, names):
        return channel(names).to_dict()["scale"]["range"]

    assert chosen(shape_of, ["8bit", "4bit"]) == list(SHAPES[1::-1])
    assert len(set(chosen(shape_of, ["8bit", "one", "two"]))) == 3
    assert chosen(colour_of, ["8bit", "4bit"]) == [VERMILION, BLUE]
    assert BLUE not in chosen(colour_of, ["4bit", "one", "two"])[1:]
    assert chosen(colour_of, [f"p{i}" for i in range(8)])[-1] == charts.MUTED


def test_ids_of_two_charts_in_a_page_are_apart_and_text_is_escaped():
    svg = '<svg viewBox="0 0 10 20"><clipPath id="c"/><g clip-path="url(#c)" fill="var(--ink)"/></svg>'
    page = in_page(svg, "one", 'a < b "c"')
    assert 'id="one-c"' in page and "url(#one-c)" in page and 'fill="var(--ink)"' in page
    assert "<title>a &lt; b &#34;c&#34;</title>" in page
    assert 'fill="#1a1a1a"' in as_file(svg, "a")
