"""Sentences below the charts: what is highest and lowest, and what has the same figure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.html_report import bytes_and_recall, confusion
from flows.html_report.study import and_others, reported_study
from flows.report.typed_rows import EvaluationRow, leaderboard_rows
from tests.warehouse.rows import land_pair
from tests.warehouse.test_precisions import land, noisy
from warehouse.load import load_all


@pytest.fixture
def trained(tmp_path) -> list[EvaluationRow]:
    land_pair(tmp_path)
    load_all(tmp_path)
    return [row for row in leaderboard_rows() if row.recipe_kind != "baseline"]


def test_equal_models_are_not_named_highest_and_lowest(trained):
    equal = [replace(row, ed_recall=1.0) for row in trained]
    assert confusion._findings(equal) == ["All trained models send the same share of emergencies to ED: 1.000."]


def test_one_of_several_highest_is_named_with_their_number(trained):
    shares = [1.0, 1.0, 0.5]
    rows = [replace(trained[0], ed_recall=share) for share in shares]
    highest, lowest = confusion._findings(rows)
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
