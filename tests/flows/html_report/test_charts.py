"""Every kind of chart is one that Altair accepts: the report itself is made without its checks."""

from __future__ import annotations

import altair as alt
import pytest

from flows.html_report import counts, marks
from flows.html_report.counts import Bar, Cell
from flows.html_report.drawing import BLUE, MUTED, VERMILION, as_file, colour_of, in_page
from flows.html_report.marks import Axis, CurvePoint, Dot, PlanePoint
from flows.html_report.study import LABEL_LENGTH, shortened
from flows.report.names import RANDOM

NAMES = ["4bit", "8bit"]


@pytest.fixture
def specs(monkeypatch) -> list[dict]:
    """The specifications of the charts that a test makes, which are not drawn."""
    specifications: list[dict] = []
    for module in (marks, counts):
        monkeypatch.setattr(module, "svg_of", lambda chart, **rows: specifications.append(chart.to_dict()) or "")
    return specifications


def test_dots_have_intervals_lines_and_a_margin(specs):
    rows = [Dot("a", "4bit", 1.0, 0.5, 1.5), Dot("a", "8bit", 2.0), Dot("b", "4bit", None)]
    marks.dots(rows, Axis("points"), NAMES, [0, -2], (-2, 2))
    marks.dots(rows, Axis("share", (0, 1)), NAMES, overlaid=True)
    kinds = [layer["mark"]["type"] for layer in specs[0]["layer"]]
    assert kinds == ["rect", "rule", "rule", "rule", "point"]


def test_points_have_intervals_along_both_axes(specs):
    rows = [PlanePoint("4bit", 10, 0.5, 9, 11, 0.4, 0.6, "quick")]
    marks.points(rows, Axis("MB", (5, 200), log=True), Axis("ED recall", (0, 1)), NAMES, ["quick"], [0.95])
    ticks = specs[0]["layer"][-1]["encoding"]["x"]["axis"]["values"]
    assert ticks == [5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200]


def test_curves_have_bands_dashes_flags_and_a_diagonal(specs):
    rows = [CurvePoint("4bit", x, x / 2, x / 3, x, "train") for x in (0.1, 0.2)]
    marks.curves(rows, Axis("x", (0, 1)), Axis("y"), NAMES, ["train", "valid"], [0], marked=rows[:1])
    marks.curves(rows, Axis("x", (0, 1)), Axis("y"), NAMES, diagonal=True)
    kinds = [[layer["mark"]["type"] for layer in spec["layer"]] for spec in specs]
    assert kinds == [["rule", "area", "line", "point"], ["line", "rule", "line"]]


def test_a_curve_leaves_the_chart_where_it_does(specs):
    """Pinned to the edge, a model far below everybody else would stand beside one that is just below the edge."""
    rows = [CurvePoint("4bit", 0.3, -0.04), CurvePoint("4bit", 0.5, -0.46)]
    marks.curves(rows, Axis("threshold"), Axis("net benefit", (-0.1, 0.4)), NAMES, marked=rows)
    line, point = specs[0]["layer"]
    assert line["encoding"]["y"]["scale"] == {"zero": False, "domain": [-0.1, 0.4], "nice": False}
    assert line["mark"]["clip"] and point["mark"]["clip"]


def test_short_names_keep_what_tells_models_apart():
    names = ["low_rank_high_learning_rate s42", "low_rank_high_learning_rate s43", "performance_safe from 4bit s42"]
    names += [
        "performance_safe from 8bit s42",
        "untuned (zero-shot)",
        "untuned (zero-shot, prompt 2 hospital/doctor/home)",
    ]
    short_names = [shortened(name) for name in names]
    assert short_names[1:] == [
        "low_rank_high_lea…rate s43", "perform…safe from 4bit s42", "perform…safe from 8bit s42", "untuned",
        "untuned (prompt 2 hospita…",
    ]  # fmt: skip
    assert len(set(short_names)) == len(names) and max(map(len, short_names)) == LABEL_LENGTH
    assert [shortened(name + RANDOM) for name in names] == [name + RANDOM for name in short_names]


def test_bars_go_to_both_sides_and_matrices_stand_side_by_side(specs):
    counts.bars([Bar("a", "lost", -2), Bar("a", "gained", 3)], "emergencies", ["lost", "gained"])
    counts.matrices([Cell(name, "ED", "GP", 3, 0.2) for name in NAMES], NAMES, ["ED", "GP", "HOME"])
    assert specs[0]["height"] == marks.AXIS_AND_LEGEND + marks.ROW
    assert specs[0]["layer"][0]["encoding"]["x"]["stack"] is None
    assert "facet" in specs[1]


def test_a_precision_has_its_colour_in_every_chart():
    assert colour_of(["8bit", "4bit"]).to_dict()["range"] == [VERMILION, BLUE]
    assert BLUE not in colour_of(["4bit", "one", "two"]).to_dict()["range"][1:]
    assert colour_of([f"p{i}" for i in range(8)]).to_dict()["range"][-1] == MUTED


def test_ids_of_two_charts_in_a_page_are_apart_and_text_is_escaped():
    svg = '<svg viewBox="0 0 10 20"><clipPath id="c"/><g clip-path="url(#c)" fill="#010203"/></svg>'
    page = in_page(svg, "one", 'a < b "c"')
    assert 'id="one-c"' in page and "url(#one-c)" in page and 'fill="var(--ink)"' in page
    assert "<title>a &lt; b &#34;c&#34;</title>" in page
    assert 'fill="#1a1a1a"' in as_file(svg, "a")


def test_altair_is_asked_for_the_version_that_draws(specs):
    assert alt.SCHEMA_VERSION.startswith("v6.")
