"""A warehouse that is damaged or misplaced: each command says so first, and `triage warehouse rebuild` fills a new one."""

from __future__ import annotations

import pytest

from flows.cli.main import app
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tests.warehouse.rows import land_pair
from warehouse.connect import warehouse_path
from warehouse.load import load_all
from warehouse.query import query_rows

COMMANDS = [
    ("sweep", "smoke"), ("sweep", "smoke", "--plan"), ("compare",), ("sql", "SELECT 1"), ("status",), ("gates", "t4"),
]  # fmt: skip


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def landed():
    land_pair(home() / "landing")
    load_all(home() / "landing")


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_damaged_warehouse_is_told_with_its_remedy_before_anything_runs(args, landed):
    warehouse_path().write_bytes(warehouse_path().read_bytes()[:5000])
    before = sorted(home().rglob("*"))
    with pytest.raises(
        BadInput, match="is damaged .*; it can be rebuilt from the landing files: triage warehouse rebuild"
    ):
        app(args, standalone_mode=False)
    assert sorted(home().rglob("*")) == before


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_file_that_is_no_warehouse_is_not_touched(args, tmp_path, monkeypatch):
    cases = tmp_path / "cases.csv"
    cases.write_text("text,label\nmy chest hurts,ED\n")
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(cases))
    with pytest.raises(BadInput, match=f"{cases} names a file of another kind.* e.g. .*cases.duckdb"):
        app(args, standalone_mode=False)
    assert sorted(tmp_path.iterdir()) == [cases] and cases.read_text().startswith("text,label")


def test_a_rebuild_says_what_it_did_and_every_result_is_back(landed, capsys):
    before = query_rows("FROM prediction ORDER BY ALL")
    warehouse_path().write_bytes(b"damaged")
    assert app(["warehouse", "rebuild"], standalone_mode=False) == 0
    out = capsys.readouterr().out
    assert f"The warehouse has been rebuilt from 4 landing folders: {warehouse_path()}" in out
    assert f"The old file is damaged and kept: {warehouse_path()}.damaged-" in out
    assert query_rows("FROM prediction ORDER BY ALL") == before


def test_a_rebuild_names_what_it_could_not_load_and_says_how_it_is_made_again(landed, capsys):
    flip(home() / "landing" / "e4" / "prediction.parquet")
    assert app(["warehouse", "rebuild"], standalone_mode=False) == 1
    errors = capsys.readouterr().err
    assert "Not in it: e4. " in errors and "prediction.parquet does not have the digest" in errors
    assert "run the sweep or the benchmark that made them once more" in errors
    assert query_rows("SELECT id FROM landed ORDER BY ALL").rows == [("e8",), ("t4",), ("t8",)]


def test_without_landing_files_the_old_warehouse_stays():
    warehouse_path().parent.mkdir(parents=True, exist_ok=True)
    warehouse_path().write_bytes(b"damaged")
    with pytest.raises(BadInput, match="There are no landing files in .*; run a sweep, e.g. triage sweep"):
        app(["warehouse", "rebuild"], standalone_mode=False)
    assert warehouse_path().read_bytes() == b"damaged"


def test_a_rebuild_takes_the_place_of_no_other_file(landed, tmp_path, monkeypatch):
    cases = tmp_path / "cases.csv"
    cases.write_text("text,label\n" * 10)
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(cases))
    with pytest.raises(BadInput, match="names a file of another kind"):
        app(["warehouse", "rebuild"], standalone_mode=False)
    assert cases.read_text() == "text,label\n" * 10
