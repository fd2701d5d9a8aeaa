"""What patients wrote stays in the data folder: not in Prefect's database, logs, results, landing files or the warehouse."""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest


def pieces_of(home: Path) -> Callable[[bytes], bool]:
    """Finds a piece of any case of a home: the beginning, the middle or the end of its text, as it is or as JSON writes
    it."""
    texts = [
        json.loads(line)["text"]
        for path in (home / "data").rglob("*.jsonl")
        if path.name != "facts.jsonl"  # names of facts, no text
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(texts) == 48 + 12 + 24 + 24
    pieces = {
        piece for text in texts for piece in (text[:30], text[len(text) // 2 :][:30], text[-30:]) if len(piece) == 30
    }
    forms = {form.encode() for piece in pieces for form in (piece, json.dumps(piece)[1:-1])}
    return lambda content: any(form in content for form in forms)


@pytest.fixture(scope="module")
def has_piece(smoke) -> Callable[[bytes], bool]:
    return pieces_of(smoke[0].home)


def test_no_file_outside_the_data_folder_and_nothing_that_was_printed_holds_a_piece_of_a_case(smoke, has_piece):
    place, first = smoke
    data = place.home / "data"
    assert has_piece(next(data.rglob("test.jsonl")).read_bytes()), "the search finds a case where it should be"
    files = [p for p in place.folder.rglob("*") if p.is_file() and data not in p.parents]
    kinds = {p.suffix for p in files}
    assert {".db", ".duckdb", ".parquet", ".log", ".json", ".jsonl"} <= kinds, "what is searched is what matters"
    assert [str(p.relative_to(place.folder)) for p in files if has_piece(p.read_bytes())] == []
    assert not has_piece((first.stdout + first.stderr).encode())


def test_no_cell_of_the_warehouse_a_landing_file_or_prefects_database_holds_one_either(smoke, has_piece):
    """They are compressed on disk, so their values are looked at too."""
    place, _ = smoke
    with duckdb.connect(str(place.warehouse), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        assert "prediction" in tables
        matches = {name: str(connection.execute(f'FROM "{name}"').fetchall()).encode() for name in tables}

    for path in place.home.glob("landing/*/*.parquet"):
        matches[f"{path.parent.name}/{path.name}"] = str(pq.read_table(path).to_pylist()).encode()

    of_prefect = [name for (name,) in place.prefect("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert {"log", "artifact", "flow_run", "task_run"} <= set(of_prefect)
    assert place.prefect("SELECT count(*) FROM log")[0][0] > 0, "the sweep's log lines are kept for the UI"
    matches |= {f"prefect {name}": str(place.prefect(f'SELECT * FROM "{name}"')).encode() for name in of_prefect}
    assert [name for name, text in matches.items() if has_piece(text)] == []

    rows = place.query("SELECT DISTINCT case_id, case_digest FROM prediction")
    assert len(rows) == 24 and rows.case_digest.str.fullmatch("[0-9a-f]{64}").all(), "cases are known by these"
