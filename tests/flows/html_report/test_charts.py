"""Every kind of chart is one that Altair accepts: the report itself is made without its checks."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from flows.html_report import marks
from flows.html_report.drawing import BLUE, MUTED, SHAPES, VERMILION, as_file, colour_of, in_page, shape_of
from flows.html_report.marks import Axis, BandPoint, Bar, Cell, Dot, PlanePoint
from flows.html_report.study import LABEL_LENGTH, chart_labels, in_lines, shortened
from flows.report.figures import RANDOM

NAMES = ["4bit", "8bit"]


@pytest.fixture
def specs(monkeypatch) -> list[dict]:
    """The specifications of the charts that a test makes, which are not drawn."""
    specifications: list[dict] = []
    monkeypatch.setattr(marks, "svg_of", lambda chart, **rows: specifications.append(chart.to_dict()) or "")
    return specifications


def test_charts_have_the_marks_of_their_kind(specs):
    dots = [Dot("a", "4bit", 1.0, 0.5, 1.5), Dot("a", "8bit", 2.0), Dot("b", "4bit", None)]
    marks.dots(dots, Axis("points"), NAMES, [0, -2], (-2, 2))
    marks.dots(dots, Axis("share", (0, 1)), NAMES, overlaid=True)
    curves = [BandPoint("4bit", x, x / 2, x / 3, x, "train") for x in (0.1, 0.2)]
    marks.curves(curves, Axis("x", (0, 1)), Axis("y"), NAMES, ["train", "valid"], [0], marked=curves[:1])
    marks.curves(curves, Axis("x", (0, 1)), Axis("y"), NAMES, diagonal=True)
    kinds = [[layer["mark"]["type"] for layer in spec["layer"]] for spec in specs]
    assert kinds[0] == ["rect", "rule", "rule", "rule", "point"]
    assert kinds[2:] == [["rule", "area", "line", "point", "point"], ["line", "rule", "line", "point"]]

    plane = [PlanePoint("4bit", 10, 0.5, 9, 11, 0.4, 0.6, "quick")]
    marks.points(plane, Axis("MB", (5, 200), log=True), Axis("ED recall", (0, 1)), NAMES, ["quick"], [0.95])
    ticks = specs[4]["layer"][-1]["encoding"]["x"]["axis"]["values"]
    assert ticks == [5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200]

    marks.bars([Bar("a", "lost", -2), Bar("a", "gained", 3)], "emergencies", ["lost", "gained"])
    marks.matrices([Cell(name, "ED", "GP", 3, 0.2) for name in NAMES], NAMES, ["ED", "GP", "HOME"])
    assert specs[5]["height"] == marks.AXIS_AND_LEGEND + marks.ROW
    assert specs[5]["layer"][0]["encoding"]["x"]["stack"] is None and "facet" in specs[6]


def test_two_series_of_one_kind_differ_in_more_than_colour():
    rows = [BandPoint(name, x, x / 2, kind="valid") for name in NAMES for x in range(40)]
    svg = marks.curves(rows, Axis("x"), Axis("y"), NAMES, ["valid"], marked=[rows[7], rows[47]])
    outlines = {colour: re.findall(rf'<path [^>]*d="([^"]*)" fill="{colour}"', svg) for colour in (BLUE, VERMILION)}
    four, eight = (set(drawn) for drawn in outlines.values())
    assert len(four) == len(eight) == 3, "its points, the marked one and the legend"
    assert not four & eight
    assert all(len(drawn) == marks.MOST_SHAPES + 2 for drawn in outlines.values())
    shaped = marks._shaped(rows, NAMES)
    assert len({row.x for row in shaped}) == len(shaped) == 2 * marks.MOST_SHAPES, "side by side"


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(luminance(colour) + 0.05 for colour in (one, other))
    return lighter / darker


def test_4_and_8_bits_differ_in_lightness_in_every_mode_and_are_seen_on_the_page():
    style = (files("flows.html_report") / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    modes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert len(modes) == 3, "light, dark and printed"
    for mode in modes:
        assert contrast(mode["blue"], mode["vermilion"]) >= 2
        assert min(contrast(mode[name], mode["paper"]) for name in ("blue", "vermilion")) >= 3

    assert (modes[0]["blue"], modes[0]["vermilion"]) == (BLUE, VERMILION), "a file of its own is a light one"


def test_a_curve_leaves_the_chart_where_it_does(specs):
    """Pinned to the edge, a model far below everybody else would stand beside one that is just below the edge."""
    rows = [BandPoint("4bit", 0.3, -0.04), BandPoint("4bit", 0.5, -0.46)]
    marks.curves(rows, Axis("threshold"), Axis("net benefit", (-0.1, 0.4)), NAMES, marked=rows)
    layers = specs[0]["layer"]
    assert layers[0]["encoding"]["y"]["scale"] == {"zero": False, "domain": [-0.1, 0.4], "nice": False}
    assert [layer["mark"]["clip"] for layer in layers] == [True] * 3


def test_short_names_keep_what_tells_models_apart():
    whole = {
        "low_rank_high_learning_rate s42": "low_rank_high_lea…rate s42",
        "low_rank_high_learning_rate s43": "low_rank_high_lea…rate s43",
        "performance_safe from 4bit s42": "perform…safe from 4bit s42",
        "untuned (zero-shot)": "untuned",
        "untuned (zero-shot, prompt 2 hospital/doctor/home)": "untuned (prompt 2 hospita…",
    }
    assert [shortened(name) for name in whole] == list(whole.values())
    assert [shortened(name + RANDOM) for name in whole] == [short + RANDOM for short in whole.values()]
    assert max(map(len, whole.values())) == LABEL_LENGTH

    alike = [f"smol 4bit\nconservative_regularised_{level}_safe s42" for level in ("low", "high")]
    labels = chart_labels([*alike, "smol 4bit\nlow_rank_high_learning_rate s42"])
    assert list(labels.values()) == [*alike, "smol 4bit\nlow_rank_high_lea…rate s42"], "whole, where they are alike"
    assert chart_labels(alike[1:])[alike[1]] == "smol 4bit\nconservative_regu…safe s42"


def test_a_long_label_goes_on_in_another_line(specs):
    label = f"smol 4bit\nconservative_regularised_low_safe s42{RANDOM}"
    lines = in_lines(label).split("\n")
    assert lines == ["smol 4bit", "conservative_regularised_", "low_safe s42", "(random weights)"]
    assert in_lines("x" * 60).split("\n") == ["x" * LABEL_LENGTH] * 2 + ["x" * 8]
    marks.dots([Dot(label, "4bit", 1.0)], Axis("share"), NAMES)
    marks.bars([Bar(label, "lost", -2)], "emergencies", ["lost", "gained"])
    assert {spec["height"] for spec in specs} == {marks.AXIS_AND_LEGEND + marks.ROW + 3 * marks.FURTHER_LINE}


def test_a_precision_has_its_colour_and_its_shape_in_every_chart():
    assert shape_of(["8bit", "4bit"]).to_dict()["range"] == list(SHAPES[1::-1])
    assert len(set(shape_of(["8bit", "one", "two"]).to_dict()["range"])) == 3
    assert colour_of(["8bit", "4bit"]).to_dict()["range"] == [VERMILION, BLUE]
    assert BLUE not in colour_of(["4bit", "one", "two"]).to_dict()["range"][1:]
    assert colour_of([f"p{i}" for i in range(8)]).to_dict()["range"][-1] == MUTED


def test_ids_of_two_charts_in_a_page_are_apart_and_text_is_escaped():
    svg = '<svg viewBox="0 0 10 20"><clipPath id="c"/><g clip-path="url(#c)" fill="#010203"/></svg>'
    page = in_page(svg, "one", 'a < b "c"')
    assert 'id="one-c"' in page and "url(#one-c)" in page and 'fill="var(--ink)"' in page
    assert "<title>a &lt; b &#34;c&#34;</title>" in page
    assert 'fill="#1a1a1a"' in as_file(svg, "a")
