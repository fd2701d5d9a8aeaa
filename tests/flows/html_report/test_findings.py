"""Sentences below the charts: what is highest and lowest, and what has the same figure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.html_report import bytes_and_recall, confusion, forest, gates, learning, marks, subgroups
from flows.html_report.study import and_others, reported_study
from flows.report.typed_rows import EvaluationRow, Row, leaderboard_rows
from tests.place import changed
from tests.warehouse.rows import evaluation, land_pair, training
from tests.warehouse.test_precisions import land, noisy
from warehouse.landing import write_landing
from warehouse.load import load_all


@pytest.fixture
def trained(tmp_path) -> list[EvaluationRow]:
    land_pair(tmp_path)
    load_all(tmp_path)
    return [row for row in leaderboard_rows() if row.recipe_kind != "baseline"]


def test_one_of_several_highest_is_named_with_their_number_and_equal_ones_are_not_ranked(trained):
    equal = [changed(row, ed_recall=1.0) for row in trained]
    assert confusion._findings(equal) == ["All trained models send the same share of emergencies to ED: 1.000."]
    highest, lowest = confusion._findings([changed(trained[0], ed_recall=share) for share in (1.0, 1.0, 0.5)])
    assert highest.startswith("Highest") and " and 1 other with the same figure, 1.000" in highest
    assert lowest.startswith("Lowest") and "other" not in lowest
    assert and_others([1.0, 1.0, 1.0], 1.0) == " and 2 others with the same figure"


def frontier_section(monkeypatch):
    monkeypatch.setattr(bytes_and_recall, "points", lambda *_, **__: "")
    return bytes_and_recall.bytes_and_recall(reported_study(None))


def test_a_moved_adapter_is_named_and_counted_apart_from_trained_models(tmp_path, monkeypatch):
    for seed, name in enumerate(("4bit", "8bit")):
        land(tmp_path, name, noisy(seed, 0.8))

    land(tmp_path, "8bit", noisy(7, 0.4), moved_from="4bit")
    load_all(tmp_path)
    section = frontier_section(monkeypatch)
    assert sorted(section.tables[0]["model"]) == ["smol 4bit r1 s42", "smol 8bit r1 from 4bit s42", "smol 8bit r1 s42"]
    counts = [line.partition(" reach")[0] for line in section.findings if " reach " in line]
    assert counts == ["0 of 2 trained models", "0 of 1 moved adapters"]
    assert "or, where its recipe says from which precision, an adapter that was moved" in section.reading


def test_without_a_moved_adapter_every_point_is_a_trained_model(trained, monkeypatch):
    section = frontier_section(monkeypatch)
    assert section.reading.startswith("Each point is a trained model: its stored size")
    assert not any("moved" in line for line in section.findings)


def test_what_fails_a_gate_never_looks_like_what_passes_it(trained):
    """1077 of 1134 emergencies are 0.9497, and 0.950 to three digits."""
    id = trained[0].evaluation_id
    row = {"evaluation_id": id, "gate": "ed_recall", "threshold": 0.95, "method": None, "note": None}
    failed = Row(**row, state="FAIL", value=1077 / 1134, bound=0.9496, successes=1077, n=1134)
    passed = Row(**row, state="PASS", value=0.9612, bound=None, successes=1090, n=1134)
    (sentence,) = gates._findings(trained, [failed])
    assert sentence.endswith("FAIL (0.9497, bound 0.9496).")
    (sentence,) = gates._findings(trained, [passed])
    assert sentence.endswith("PASS (0.961, no bound).")


def test_validation_values_of_two_recipes_have_no_single_winner(trained):
    """The objective of a safety recipe weighs emergencies: its values are on another scale."""
    losses = {("plain", "standard"): {42: 0.9, 43: 0.8}, ("safe", "safety"): {42: 0.2, 43: 0.3}}
    rows = [
        changed(trained[0], recipe=recipe, recipe_kind=kind, seed=seed, valid_loss=loss)
        for (recipe, kind), by_seed in losses.items()
        for seed, loss in by_seed.items()
    ]
    plain, safe = learning._findings([*rows, changed(trained[0], valid_loss=None)])
    assert plain.startswith("Lowest validation value of plain (its own objective,") and "plain s43" in plain
    assert safe.startswith("Lowest validation value of safe (its own objective,") and "safe s42" in safe
    assert "safe" not in plain and "plain" not in safe


@pytest.mark.parametrize(
    ("count", "kind", "words"),
    [
        (1, "standard", "for 1 trained model;"),
        (6, "safety", "for 6 trained models;"),
        (7, "standard", "for the first 6 trained models of the leaderboard;"),
        (2, "baseline", "for 2 baselines;"),
    ],
)
def test_the_models_whose_subgroups_are_shown_are_named_as_what_they_are(trained, monkeypatch, count, kind, words):
    study = reported_study(None)
    board = [changed(trained[0], evaluation_id=f"e{i}", seed=i, recipe_kind=kind) for i in range(count)]
    columns = {"field": "age", "subgroup": "child", "metric": "ed_recall", "n": 12} | {
        "value": 0.9,
        "low": 0.8,
        "high": 1,
    }
    rows = [Row(evaluation_id=row.evaluation_id, **columns) for row in board]
    monkeypatch.setattr(subgroups, "named_rows", lambda *_, **__: rows)
    monkeypatch.setattr(subgroups, "dots", lambda *_, **__: "")
    section = subgroups.subgroups(replace(study, board=board))
    assert words in section.reading and len(section.panels) == min(count, 6)


def land_two(root, cases_of, recipe="r", seed=42):
    """A pair of a recipe and a seed, with the cases of each bit width."""
    for bits, cases in cases_of.items():
        id = f"{bits}-{recipe}-{seed}"
        values = {"recipe": recipe, "seed": seed, "cell_id": f"smol-{bits}bit-{recipe}-s{seed}"}
        write_landing(root, f"t{id}", "training", training(f"t{id}", bits, **values))
        write_landing(root, f"e{id}", "evaluation", evaluation(f"e{id}", f"t{id}", cases))
    load_all(root)


def test_the_forest_says_which_pairs_are_pooled(tmp_path, monkeypatch):
    """A pair of which no model beats the best constant answer is left out."""
    for recipe, right in (("good", 0.9), ("poor", 0.0)):
        land_two(tmp_path, {bits: noisy(bits, right) for bits in (4, 8)}, recipe=recipe)
    drawn: list[tuple[list[str], list[str]]] = []
    monkeypatch.setattr(
        forest, "dots", lambda rows, _, names, *__: drawn.append(([row.label for row in rows], names)) or ""
    )
    section = forest.forest(reported_study(None))
    assert drawn[0] == (["1 pair pooled,\nover cases", "smol\ngood s42", "smol\npoor s42"], ["pooled pairs", "a pair"])
    assert "all pairs" not in section.reading and "at least one beats the best constant answer" in section.reading


def test_the_forest_shows_pooled_pairs_over_cases_and_over_trainings(tmp_path, monkeypatch):
    """A verdict needs both, so a picture of one alone may contradict it."""
    for seed in (42, 43, 44):
        land_two(tmp_path, {bits: noisy(bits * seed, 0.8) for bits in (4, 8)}, seed=seed)
    drawn: list[list[marks.Dot]] = []
    monkeypatch.setattr(forest, "dots", lambda rows, *_: drawn.append(rows) or "")
    study = reported_study(None)
    accuracy = study.pools[0].figures["all", "argmax", "accuracy"]
    forest.forest(study)

    cases, trainings = drawn[0][:2]
    assert (cases.label, trainings.label) == ("3 pairs pooled,\nover cases", "3 pairs pooled,\nover trainings")
    assert cases.value == trainings.value == 100 * accuracy.difference
    assert (cases.low, cases.high) == (100 * accuracy.low, 100 * accuracy.high)
    assert (trainings.low, trainings.high) == (100 * accuracy.seed_low, 100 * accuracy.seed_high)
