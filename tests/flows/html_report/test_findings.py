"""Sentences below the charts: what is highest and lowest, and what has the same figure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.html_report import confusion
from flows.html_report.study import and_others
from flows.report.typed_rows import EvaluationRow, leaderboard_rows
from tests.warehouse.rows import land_pair
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
