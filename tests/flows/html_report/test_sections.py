"""Sections: which rows they show of which model, and what their sentences say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.html_report import charts, curves, models, page
from flows.html_report.study import ReportedStudy, and_others, reported_study
from flows.report.figures import RANDOM, figure
from flows.report.typed_rows import Row
from tasks.grids.grid import load_grid
from tasks.landing import grid_digest
from tests.place import changed
from tests.warehouse.rows import evaluation, full, land_arm, load_pair, training
from tests.warehouse.test_evidence import dropout_row
from tests.warehouse.test_precisions import land, noisy
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

SHARES = {(4, False): 0.9, (8, False): 0.9, (4, True): 0.1, (8, True): 0.5}
CASES = {twin: noisy(seed, right) for seed, (twin, right) in enumerate(SHARES.items(), 1)}


@pytest.fixture(scope="module")
def drawn() -> Iterator[list[list[dict]]]:
    """The marks of every chart, which is not drawn; the last one last."""
    marks: list[list[dict]] = []

    def svg_of(chart, height, **named_marks):
        marks.append(list(named_marks["marks"]))
        return '<svg viewBox="0 0 1 1"></svg>'

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "svg_of", svg_of)
        yield marks


@pytest.fixture(autouse=True)
def undrawn(drawn):
    drawn.clear()


@pytest.fixture
def study(tmp_path) -> ReportedStudy:
    load_pair(tmp_path)
    return reported_study(None)


@pytest.fixture
def trained(study) -> list:
    return [row for row in study.board if row.recipe_kind != "baseline"]


def test_one_of_several_highest_is_named_with_their_number_and_equal_ones_are_not_ranked(trained):
    equal = [changed(row, ed_recall=1.0) for row in trained]
    assert models.ends_of_recall(equal) == ["All trained models send the same share of emergencies to ED: 1.000."]
    highest, lowest = models.ends_of_recall([changed(trained[0], ed_recall=share) for share in (1.0, 1.0, 0.5)])
    assert highest.startswith("Highest") and " and 1 other with the same figure, 1.000" in highest
    assert lowest.startswith("Lowest") and "other" not in lowest
    assert and_others([1.0, 1.0, 1.0], 1.0) == " and 2 others with the same figure"


def test_a_moved_adapter_is_named_and_counted_apart_from_trained_models(tmp_path):
    for seed, name in enumerate(("4bit", "8bit")):
        land(tmp_path, name, noisy(seed, 0.8))
    load_all(tmp_path)
    section = page.section_of(reported_study(None), "frontier")
    assert section.words["reading"].startswith("Each point is a trained model: its stored size")
    assert not any("moved" in line for line in section.findings)

    land(tmp_path, "8bit", noisy(7, 0.4), moved_from="4bit")
    load_all(tmp_path)
    section = page.section_of(reported_study(None), "frontier")
    assert sorted(section.tables[0]["model"]) == ["smol 4bit r1 s42", "smol 8bit r1 from 4bit s42", "smol 8bit r1 s42"]
    counts = [line.partition(" reach")[0] for line in section.findings if " reach " in line]
    assert counts == ["0 of 2 trained models", "0 of 1 moved adapters"]
    assert "or, where its recipe says from which precision, an adapter that was moved" in section.words["reading"]


def test_what_fails_a_gate_never_looks_like_what_passes_it(study, trained, monkeypatch):
    """1077 of 1134 emergencies are 0.9497, and 0.950 to three digits."""
    columns = {
        "evaluation_id": trained[0].evaluation_id,
        "gate": "ed_recall",
        "threshold": 0.95,
        "bound_adjusted": None,
    }
    outcomes = {
        "FAIL (0.9497, bound 0.9496).": {"state": "FAIL", "value": 1077 / 1134, "bound": 0.9496},
        "PASS (0.961, no bound).": {"state": "PASS", "value": 0.9612, "bound": None},
    }
    monkeypatch.setattr(models, "gates", lambda *_: None)
    for words, outcome in outcomes.items():
        rows = [Row(**columns, **outcome)]
        monkeypatch.setattr(models, "rows_of", lambda _, rows=rows: rows)
        (sentence,) = page.section_of(study, "gates").findings
        assert sentence.endswith(words)


def test_validation_values_of_two_recipes_have_no_single_winner(trained):
    """The objective of a safety recipe weighs emergencies: its values are on another scale."""
    losses = {("plain", 42): 0.9, ("plain", 43): 0.8, ("safe", 42): 0.2, ("safe", 43): 0.3, ("none", 42): None}
    rows = [changed(trained[0], recipe=recipe, seed=seed, valid_loss=loss) for (recipe, seed), loss in losses.items()]
    plain, safe = curves.lowest_losses(rows)
    assert plain.startswith("Lowest validation value of plain (its own objective,") and "plain s43" in plain
    assert safe.startswith("Lowest validation value of safe (its own objective,") and "safe s42" in safe


@pytest.mark.parametrize(
    ("count", "kind", "words"),
    [
        (1, "standard", "for 1 trained model;"),
        (7, "safety", "for the first 6 trained models of the leaderboard;"),
        (2, "baseline", "for 2 baselines;"),
    ],
)
def test_the_models_whose_subgroups_are_shown_are_named_as_what_they_are(
    study, trained, monkeypatch, count, kind, words
):
    board = [changed(trained[0], evaluation_id=f"e{i}", seed=i, recipe_kind=kind) for i in range(count)]
    columns = {"field": "age", "subgroup": "child", "n": 12, "value": 0.9, "low": 0.8, "high": 1}
    rows = [Row(evaluation_id=row.evaluation_id, **columns) for row in board]
    monkeypatch.setattr(models, "named_rows", lambda *_, **__: rows)
    section = page.section_of(replace(study, board=board), "subgroups")
    assert words in section.words["reading"] and len(section.panels) == min(count, 6)


def land_two(root, cases_of, recipe="r", seed=42):
    """A pair of a recipe and a seed, with the cases of each bit width."""
    for bits, cases in cases_of.items():
        cell = f"smol-{bits}bit-{recipe}-s{seed}"
        land_arm(root, cell, bits, cases, recipe=recipe, seed=seed, cell_id=cell)
    load_all(root)


def test_the_forest_has_a_line_for_each_recipe_with_one_interval_and_for_each_pair(tmp_path, drawn):
    """The baseline stands beside a recipe that learned something, as far from 8 bits as it is by the same rule."""
    for seed in (42, 43, 44):
        land_two(tmp_path, {bits: noisy(bits * seed, 0.9) for bits in (4, 8)}, seed=seed, recipe="good")
    land_two(tmp_path, {bits: noisy(bits, 0.0) for bits in (4, 8)}, recipe="poor")
    values = {"recipe": "linear", "recipe_kind": "baseline", "base_model": "none", "cell_id": "linear"}
    land_arm(tmp_path, "linear", None, noisy(99, 0.8), **values)
    load_all(tmp_path)
    study = reported_study(None)
    section = page.section_of(study, "forest")
    panels = dict(zip([panel.title for panel in section.panels], drawn, strict=True))
    assert len(panels) == 5 and "two points" not in section.words["reading"]

    marks = panels["Accuracy"]
    labels = [mark["label"] for mark in marks]
    assert labels[:3] == ["smol\ngood, 3 seeds"] * 2 + ["smol\npoor, 1 seed"]
    assert labels[3:] == [f"smol\n{name}" for name in ("good s42", "good s43", "good s44", "poor s42")]
    assert [mark["series"] for mark in marks] == ["recipe", "baseline", "recipe", *["one training"] * 4]

    by_threshold = panels["Over-triage by threshold"]
    of_good = ("good", "over_triage", "target_recall")
    (row,) = (row for row in study.recipes if (row.recipe, row.metric, row.rule) == of_good)
    mean, baseline, *_ = by_threshold
    ends = [100 * end for end in (row.difference, row.low, row.high)]
    assert [mean[end] for end in ("x", "x_low", "x_high")] == ends
    assert baseline["x"] == pytest.approx(100 * (row.linear_value - row.value_8bit)) and baseline["x_low"] is None
    assert len(by_threshold) == 3, "pairs have no figures by it"


def test_recipes_that_differ_in_punctuation_alone_have_a_chart_each(tmp_path):
    for recipe in ("a_b", "a-b"):
        land_two(tmp_path, {4: noisy(1, 0.8)}, recipe=recipe)
    html, svgs, _ = page.made_report(reported_study(None), "")
    assert {"confusion-smol-a-b-s42", "confusion-smol-a-b-s42-2"} <= set(svgs)
    titles = re.findall(r'<svg [^>]*aria-label="([^"]*)"', html)
    assert len(set(titles)) == len(titles) == len(svgs)


def test_sections_without_rows_say_what_would_give_them(tmp_path):
    write_landing(tmp_path, "t4", "training", training("t4") | {"training_curve": []})
    rows = evaluation("e4", "t4") | {"net_benefit": [], "reliability": [], "gate": []}
    write_landing(tmp_path, "e4", "evaluation", rows)
    load_all(tmp_path)
    sections = {id: page.section_of(reported_study(None), id) for id in page.SECTIONS}
    missing = {id for id, section in sections.items() if section.missing}
    without_rows = {"learning", "reliability", "decision-curves", "risk-coverage", "subgroups", "gates", "data"}
    assert missing == {"forest", "flips"} | without_rows
    assert [id for id in missing if not sections[id].missing.endswith(".") or sections[id].panels] == []
    assert "since an earlier version judged them" in sections["decision-curves"].missing


@pytest.mark.parametrize(
    ("grid", "overrides", "command"),
    [
        ("smoke", [], "triage sweep smoke$"),
        ("smoke", ["seeds=[43]"], "triage sweep smoke  # .*other settings.*--set"),
        ("my_study", [], "triage sweep GRID.toml  # your own grid file of my_study$"),
        (None, [], "triage compare earlier --all$"),
    ],
)
def test_the_sweep_that_repeats_a_study_is_one_that_can_be_typed(study, grid, overrides, command):
    digest = grid_digest(load_grid("smoke", overrides))
    assert re.match(command, page.section_of(replace(study, grid=grid, grid_digest=digest), "environment").commands[0])


TABLES = {"reliability": "reliability", "decision-curves": "net_benefit", "subgroups": "subgroup_metric"}
WITHOUT_MODELS = ("data", "environment")  # sections that name none, or leave random weights out


def land_twins(root: Path) -> None:
    """Every cell twice, with real and with random weights: neither may have the other one's figures. Emergencies of the
    subgroup and of the bin of p(ED) fare otherwise under random weights."""
    child = {"field": "age", "subgroup": "child", "metric": "ed_recall", "method": "by hand", "n": 12}
    of_bin = {"low": 0.05, "high": 0.1, "n": 9, "mean_p_ed": 0.07, "share_low": 0.1, "share_high": 0.9}
    with_dropout = {"mc_status": "available", "mc_reason": None, "mc_cases": 2, "mc_passes": 50}
    for (bits, random_weights), cases in CASES.items():
        kind, share = ("random", 0.2) if random_weights else ("real", 0.8)
        training_id, id = f"t{bits}-{kind}", f"e{bits}-{kind}"
        trained = training(training_id, bits, random_weights=random_weights, valid_loss=0.3)
        write_landing(root, training_id, "training", trained)
        rows = evaluation(id, training_id, cases, **with_dropout)
        rows["mc_dropout"] = [dropout_row(id, i, i == 0, 0.1 + 0.1 * i) for i in range(2)]
        # One of two decisions is wrong, and the votes alone flag it; real models miss an emergency by it.
        of_flag = {"cases": 2, "load": 0.5, "aurc": 0.2, "missed_ed": 0 if random_weights else 1}
        rows["review_flag"] = [
            full("review_flag", evaluation_id=id, score=score, **of_flag, error_flagged=caught, error_kept=1.0 - caught,
                 missed_ed_flagged=None if random_weights else caught)
            for score, caught in (("vote_entropy", 1.0), ("single_pass_entropy", 0.0), ("max_probability", 0.0))
        ]  # fmt: skip
        ends = {"value": share, "low": share - 0.1, "high": share + 0.1}
        rows["subgroup_metric"] = [full("subgroup_metric", evaluation_id=id, **child, **ends)]
        rows["reliability"] = [full("reliability", evaluation_id=id, ed_share=share, **of_bin)]
        write_landing(root, id, "evaluation", rows)


@pytest.fixture(scope="module")
def twins(tmp_path_factory, drawn) -> SimpleNamespace:
    """The study with its sections, and the labels and kinds of the charts of each."""
    home = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIAGE_HOME", str(home))
        patch.setenv("TRIAGE_WAREHOUSE", str(home / "triage.duckdb"))
        land_twins(home / "landing")
        load_all(home / "landing")
        study = reported_study(None)
        sections, names = {}, {}
        for id in page.SECTIONS:
            drawn.clear()
            sections[id] = page.section_of(study, id)
            names[id] = [mark.get("label", mark.get("kind")) for marks in drawn for mark in marks]
        landed = {table: list(query(f"FROM {table}").evaluation_id) for table in TABLES.values()}
        return SimpleNamespace(study=study, sections=sections, names=names, landed=landed)


def test_each_twin_has_its_own_rows_of_the_confusion_matrix(twins):
    panels = {panel.title: panel.alt for panel in twins.sections["confusion"].panels}
    for (bits, random_weights), cases in CASES.items():
        sent, to_gp = (sum(case[0] == "ED" and case[2] == decision for case in cases) for decision in ("ED", "GP"))
        name = f"smol r1 s42{RANDOM if random_weights else ''}"
        assert f"{bits}bit: of the emergencies {sent} sent to ED, {to_gp} to GP" in panels[name]


@pytest.mark.parametrize(("section", "view"), TABLES.items())
def test_a_table_has_every_row_once_below_its_own_model(twins, section, view):
    (table,) = twins.sections[section].tables
    names = {row.evaluation_id: row.model for row in twins.study.shown(twins.study.board)}
    assert sorted(table["experiment"]) == sorted(names[id] for id in twins.landed[view])


def test_every_section_marks_random_weights(twins):
    for section in twins.sections.values():
        cells = [text for table in section.tables for row in table.rows for text in row]
        titles = [panel.title for panel in section.panels]
        is_marked = any(RANDOM in text for text in cells) and len(set(titles)) == len(titles)
        assert is_marked or section.id in WITHOUT_MODELS, section.id


@pytest.mark.parametrize("section", ["frontier", "flips", "forest"])
def test_points_bars_and_dots_of_random_weights_are_marked(twins, section):
    names = [name.replace("\n", " ") for name in twins.names[section]]
    assert sum(name.endswith(RANDOM) for name in names) == len(names) / 2 > 0
    assert section != "forest" or len(set(names)) == 4, "two pairs, and the recipe of each"


def test_the_catch_of_the_review_flag_is_that_of_a_recipe_and_of_each_model(twins):
    section = twins.sections["risk-coverage"]
    sent = "the review flag sends 50.0% of {} decisions to review and catches"
    missed = "{0} of {1} missed emergencies and {0} of {1} wrong decisions"
    as_large = "as large a flag by the largest probability of one pass catches"
    together = f"{sent.format(4)} {missed.format(2, 2)}; {as_large} {missed.format(0, 2)}, a random one 50.0% of each."
    assert f"smol r1, 2 models: {together}" in section.findings
    panels = {panel.title: panel.alt for panel in section.panels}
    assert f"8bit: {sent.format(2)} {missed.format(1, 1)}" in panels["smol r1 s42"]
    assert f"8bit: {sent.format(2)} 1 of 1 wrong decisions" in panels[f"smol r1 s42{RANDOM}"]


def test_the_largest_loss_has_the_interval_of_its_own_pair(twins):
    (pair,) = (pair for pair in twins.study.pairs if pair.random_weights)
    interval = figure(pair.ed_recall_diff, pair.ed_recall_low, pair.ed_recall_high, sign=True)
    (sentence,) = twins.sections["flips"].findings
    assert RANDOM in sentence and sentence.endswith(f"in ED recall {interval}.")
