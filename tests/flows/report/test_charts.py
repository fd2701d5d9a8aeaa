"""Every kind of chart is one that Altair accepts: the report itself is made without its checks."""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np
import pytest

from flows.report import charts
from flows.report.charts import LIGHT, PALETTE, SHAPES, as_file, colour_of, in_lines, in_page, shape_of
from flows.report.figures import RANDOM
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


def test_two_series_of_one_kind_differ_in_more_than_colour():
    marks = [{"series": name, "x": x, "y": x / 2, "kind": "valid"} for name in NAMES for x in range(40)]
    svg = charts.curves(marks, {"title": "x"}, {"title": "y"}, top=[marks[7], marks[47]])
    outlines = [re.findall(rf'<path [^>]*d="([^"]*)" fill="{re.escape(colour)}"', svg) for colour in (BLUE, VERMILION)]
    four, eight = map(set, outlines)
    assert len(four) == len(eight) == 3, "its points, the one on top and the legend"
    assert not four & eight
    assert [len(drawn) for drawn in outlines] == [charts.MOST_SHAPES + 2] * 2


def contrast(*colours: str) -> float:
    """The ratio of two colours' relative luminances, as WCAG 2 has it."""
    parts = [[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in colours]
    linear = np.where(np.array(parts) <= 0.04045, np.array(parts) / 12.92, ((np.array(parts) + 0.055) / 1.055) ** 2.4)
    darker, lighter = sorted(linear @ (0.2126, 0.7152, 0.0722) + 0.05)
    return lighter / darker


def test_4_and_8_bits_differ_in_lightness_in_every_mode_and_are_seen_on_the_page():
    style = (files("flows.report") / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    modes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert len(modes) == 3, "light, dark and printed"
    for mode in [*modes, LIGHT | {"paper": "#ffffff"}]:
        assert set(LIGHT) <= set(mode)
        assert contrast(mode["blue"], mode["vermilion"]) >= 2
        assert min(contrast(mode[name], mode["paper"]) for name in ("blue", "vermilion")) >= 3


def test_a_curve_leaves_the_chart_where_it_does(specs):
    """Pinned to the edge, a model far below everybody else would stand beside one that is just below the edge."""
    marks = [{"series": "4bit", "x": 0.3, "y": -0.04}, {"series": "4bit", "x": 0.5, "y": -0.46}]
    charts.curves(marks, {"title": "threshold"}, {"title": "net benefit", "domain": (-0.1, 0.4)}, top=marks)
    layers = specs[0]["layer"]
    assert layers[0]["encoding"]["y"]["scale"] == {"zero": False, "domain": [-0.1, 0.4], "nice": False}
    assert [layer["mark"]["clip"] for layer in layers] == [True] * 3


def test_a_long_label_goes_on_in_another_line(specs):
    label = f"smol 4bit\nconservative_safe s42{RANDOM}"
    assert in_lines(label).split("\n") == ["smol 4bit", "conservative_safe s42", "(random weights)"]
    assert max(map(len, in_lines("x" * 60).split("\n"))) == charts.LABEL_LENGTH
    charts.dots([{"label": label, "series": "4bit", "x": 1.0}], {"title": "share"})
    assert specs[0]["height"] == charts.AXIS_AND_LEGEND + charts.ROW + 2 * charts.FURTHER_LINE


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
