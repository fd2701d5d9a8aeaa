"""The page as a whole: every chart stands in its own place under a name of its own, and counts read well."""

from __future__ import annotations

import pytest
from markupsafe import escape

from flows.html_report import marks
from flows.html_report.page import as_html, made_report
from flows.html_report.study import Panel, Section, reported_study, with_own_names
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

BLANK = '<svg viewBox="0 0 1 1"></svg>'


@pytest.fixture(autouse=True)
def blank_charts(monkeypatch):
    monkeypatch.setattr(marks, "svg_of", lambda chart, **rows: BLANK)


def land_recipes(root, *recipes: str) -> None:
    for recipe in recipes:
        values = {"recipe": recipe, "cell_id": f"smol-4bit-{recipe}-s42"}
        write_landing(root, f"t-{recipe}", "training", training(f"t-{recipe}", 4, **values))
        write_landing(root, f"e-{recipe}", "evaluation", evaluation(f"e-{recipe}", f"t-{recipe}"))
    load_all(root)


def test_recipes_that_differ_in_punctuation_alone_have_a_chart_each(tmp_path):
    land_recipes(tmp_path, "a_b", "a-b")
    report = made_report(reported_study(None), "")
    panels = [panel for section in report.sections for panel in section.panels]
    assert {"confusion-smol-a-b-s42", "confusion-smol-a-b-s42-2"} <= {panel.name for panel in panels}
    assert len(report.charts) == len(panels)

    html = as_html(report)
    assert [panel.alt for panel in panels if html.count(f'aria-label="{escape(panel.alt)}"') != 1] == []


def test_a_number_is_not_a_name_that_another_panel_has():
    names = ["a", "a-2", "a", "a", "a-2"]
    sections = [Section("one", "", panels=[Panel(name, "", "", "")]) for name in names]
    own_names = [panel.name for section in with_own_names(sections) for panel in section.panels]
    assert own_names == ["a", "a-2", "a-3", "a-4", "a-2-2"]


def test_experiments_whose_shortened_names_are_the_same_have_a_line_each(tmp_path, monkeypatch):
    recipes = [f"conservative_regularised_{level}_safe" for level in ("low", "high")]
    land_recipes(tmp_path, *recipes)
    labels: set[str] = set()
    monkeypatch.setattr(
        "flows.html_report.baselines.dots", lambda rows, *_, **__: labels.update(row.label for row in rows) or ""
    )
    made_report(reported_study(None), "")
    assert labels == {f"smol 4bit\n{recipe} s42" for recipe in recipes}
