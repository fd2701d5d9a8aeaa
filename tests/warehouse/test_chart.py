"""The chart that warehouse/README.md makes by hand: its code runs, and shows the figures of the view."""

from __future__ import annotations

import re

from tests.place import ROOT
from tests.warehouse.rows import land_pair
from warehouse.load import load_all
from warehouse.query import query


def test_a_chart_is_made_by_a_query_and_ten_lines(tmp_path, monkeypatch):
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "warehouse" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    land_pair(tmp_path / "landing")
    load_all(tmp_path / "landing")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)

    assert (tmp_path / "forest.svg").read_text().startswith("<svg")
    expected = query("SELECT ed_recall_diff, ed_recall_low, ed_recall_high FROM quantization_comparison")
    assert names["rows"][list(expected)].equals(expected) and len(expected) == 1
