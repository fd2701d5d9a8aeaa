"""The charts that warehouse/FIGURES.md makes by hand: its code runs, and has the figures of the report's own charts."""

from __future__ import annotations

import re

import pytest

from flows.bench.synthetic_study import SyntheticStudy
from flows.html_report import bytes_and_recall, forest
from flows.html_report.study import reported_study
from tests.place import ROOT
from warehouse.load import load_all

CODE = re.findall(r"^```python\n(.*?)^```$", (ROOT / "warehouse" / "FIGURES.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def drawn_rows(tmp_path, monkeypatch) -> dict[str, list]:
    """The rows of the report's two charts, on a small study whose warehouse the code finds, by file."""
    SyntheticStudy(4, 40).land(tmp_path / "landing")
    load_all(tmp_path / "landing")
    rows: dict[str, list] = {"forest.svg": [], "frontier.svg": []}
    monkeypatch.setattr(forest, "dots", lambda chart_rows, *_: rows["forest.svg"].append(chart_rows) or "")
    monkeypatch.setattr(
        bytes_and_recall, "points", lambda chart_rows, *_, **__: rows["frontier.svg"].extend(chart_rows) or ""
    )
    study = reported_study(None)
    forest.forest(study)
    bytes_and_recall.bytes_and_recall(study)
    monkeypatch.chdir(tmp_path)

    return rows


def test_two_charts_are_made_by_a_query_and_ten_lines(drawn_rows, tmp_path):
    python = [re.sub(r'""".*?"""', "SQL", code, flags=re.DOTALL) for code in CODE]
    assert len(CODE) == 2 and all(len(code.strip().splitlines()) <= 10 for code in python), "beside the query"

    saved: dict[str, object] = {}
    for code in CODE:
        names: dict[str, object] = {}
        exec(code, names)
        saved[re.search(r'save\("(.*?)"\)', code)[1]] = names["rows"]

    assert all((tmp_path / name).read_text().startswith("<svg") for name in saved)

    pairs = [row for row in drawn_rows["forest.svg"][1] if row.series == forest.PAIR]
    by_hand = saved["forest.svg"]
    assert len(pairs) == 2
    assert sorted(100 * by_hand["ed_recall_diff"]) == pytest.approx(sorted(row.value for row in pairs))
    assert sorted(100 * by_hand["ed_recall_low"]) == pytest.approx(sorted(row.low for row in pairs))

    points = drawn_rows["frontier.svg"]
    by_hand = saved["frontier.svg"]
    assert len(points) == 4
    assert sorted(by_hand["megabytes"]) == pytest.approx(sorted(row.x for row in points), rel=0.02), "a little apart"

    for column, name in (("ed_recall", "y"), ("ed_recall_low", "y_low"), ("ed_recall_high", "y_high")):
        assert sorted(by_hand[column]) == pytest.approx(sorted(getattr(row, name) for row in points))
