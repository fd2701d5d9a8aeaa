"""Models and baselines by the same rules, on the published studies: no table sets a baseline's most probable label
beside a model's threshold."""

from __future__ import annotations

import pytest

from flows.html_report import charts, page
from flows.html_report.study import reported_study
from flows.report.figures import figure, interval
from flows.report.gates import gates
from flows.report.leaderboard import evaluation_ids, leaderboard, overview, side_by_side, study_rows
from flows.report.rules import THRESHOLD, by_common_rules, cheap_baseline, rules
from flows.report.typed_rows import leaderboard_rows
from warehouse.query import query

pytestmark = pytest.mark.usefixtures("published")
LINEAR = "linear model (words, characters)"
BAG = "bag of words (TF-IDF, LR)"  # fitted by an earlier version


@pytest.fixture
def board():
    return leaderboard_rows(evaluation_ids("study"))


def of_rule(rule: str, metric: str) -> dict[str, str]:
    rows = query(f"FROM metric WHERE rule = '{rule}' AND metric = '{metric}'").itertuples()
    return {row.evaluation_id: figure(row.value, row.low, row.high) for row in rows}


def test_the_leaderboard_has_every_figure_by_one_rule_and_says_which(board):
    table = leaderboard(board)
    by_label, by_threshold = of_rule("argmax", "accuracy"), of_rule(THRESHOLD, "over_triage")
    for row, record in zip(board, table.records(), strict=True):
        assert record["accuracy"] == by_label[row.evaluation_id]
        constant = row.recipe.startswith("always")
        assert record["over-triage"] == (interval(row, "over_triage") if constant else by_threshold[row.evaluation_id])

    for name, recall, over_triage in ((LINEAR, "0.946", "0.275"), (BAG, "0.948", "0.380")):
        row = dict(zip(table["experiment"], table.records(), strict=True))[name]
        assert (row["ED recall"][:5], row["over-triage"][:5], row["gates"]) == (recall, over_triage, "-")
    note = "the figures of ED and over-triage by each one's threshold, chosen on calibration for an ED recall of 0.95 or 0.96"
    assert note in table.title and note in overview(board, 3).title
    short = dict(zip(*(overview(board, 3)[name] for name in ("experiment", "ED recall")), strict=True))
    assert short[LINEAR].startswith("0.946 [")


def test_by_a_rule_of_its_own_a_model_stands_beside_baselines_by_that_rule(board):
    by_argmax = {row.recipe: row for row in by_common_rules(board, "argmax")}
    assert round(by_argmax["tfidf_lr"].ed_recall, 3) == 0.629
    assert by_argmax["always_ed"].ed_recall == 1
    assert cheap_baseline(board).recipe == "linear" and cheap_baseline(board[:3]) is None
    assert cheap_baseline([row for row in board if row.recipe != "linear"]).recipe == "tfidf_lr"


def test_no_baseline_has_gates_which_only_its_most_probable_label_would_have_met(board):
    assert not any(name.startswith(("always", "bag", "linear")) for name in gates(board)["experiment"])
    first_table = rules(board)[0]
    assert any(name.startswith(LINEAR) for name in first_table["experiment"]), "each rule of each has a line there"


def test_two_studies_side_by_side_name_the_rules(board):
    table = side_by_side(*study_rows())
    assert "by each one's threshold" in table.title
    assert next(row for row in table.records() if row["experiment"] == BAG)["ED recall\nstudy"].startswith("0.948")


def test_planes_and_decision_curves_of_models_have_the_baseline_in_them(monkeypatch):
    marks = []

    def svg_of(chart, height, **named):
        marks.append(list(named["marks"]))
        return '<svg viewBox="0 0 1 1"></svg>'

    monkeypatch.setattr(charts, "svg_of", svg_of)
    study = reported_study("study")
    for section, field in (("rules", "kind"), ("decision-curves", "series")):
        marks.clear()
        shown = page.section_of(study, section)
        assert marks and all(any(mark[field] == "no language model" for mark in of_chart) for of_chart in marks)
        assert len(shown.panels) == len(marks)
        assert "linear model" in shown.words["reading"]

    marks.clear()
    page.section_of(study, "baselines")
    recall = {mark["label"]: mark["x"] for mark in marks[1]}
    assert round(recall[LINEAR.replace(" (", "\n(")], 3) == 0.946
    (sentence,) = [line for line in page.section_of(study, "frontier").findings if LINEAR in line]
    figures = "ED recall 0.946 [0.929, 0.963], over-triage 0.275 [0.251, 0.300]"
    assert sentence == f"Without a language model, {LINEAR}: {figures}."
