"""The warehouse explains itself: every table, view and column has a comment in the file."""

from __future__ import annotations

import tomllib

import duckdb
import pytest

from tests.warehouse.rows import land_pair
from warehouse import comments as texts
from warehouse import migrate as migrations
from warehouse.comments import comments, comments_text, head_of
from warehouse.connect import reading, writing
from warehouse.load import load_all
from warehouse.migrate import migrate, sql_files
from warehouse.rebuild import rebuild

WITHOUT = """
SELECT table_name || '.' || column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL
UNION ALL SELECT table_name FROM duckdb_tables() WHERE NOT internal AND comment IS NULL
UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL
ORDER BY 1
"""
ADD = "write what it means, with its unit, into warehouse/comments.toml"


def without_comment(con):
    return [name for (name,) in con.execute(WITHOUT).fetchall()]


@pytest.fixture(scope="module")
def every():
    """The columns of each table and view of a new warehouse, and the comments of the views."""
    with duckdb.connect(":memory:") as con:
        migrate(con)
        columns = con.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE NOT internal GROUP BY ALL"
        ).fetchall()
        views = con.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall()
    return dict(columns), dict(views)


def test_every_table_view_and_column_has_a_comment_in_the_file(tmp_path):
    land_pair(tmp_path / "landing")
    load_all(tmp_path / "landing", tmp_path / "w.duckdb")
    with reading(tmp_path / "w.duckdb") as con:
        assert without_comment(con) == [], ADD
    rebuild(tmp_path / "landing", tmp_path / "w.duckdb")
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as con:
        assert without_comment(con) == [], "in a plain DuckDB client, after a rebuild"


def test_a_new_column_without_a_comment_is_named():
    with duckdb.connect(":memory:") as con:
        migrate(con)
        con.execute("ALTER TABLE landed ADD COLUMN novelty DOUBLE")
        assert without_comment(con) == ["landed.novelty"]


def test_no_comment_is_for_what_is_not_there(every):
    present = {name: set(columns) for name, columns in every[0].items()}
    content = tomllib.loads(comments_text())
    anywhere = set().union(*present.values())
    assert sorted(set(content["columns"]) - anywhere) == []
    unknown = [
        f"{table}.{column}"
        for table, columns in content["table"].items()
        for column in columns.keys() - present.get(table, set()) - {"comment"}
    ]
    assert (unknown, sorted(content["table"].keys() - present.keys())) == ([], [])
    assert {*content["references"].values()} <= present.keys() and {*content["references"]} <= anywhere


def test_no_column_is_described_twice_in_the_same_words():
    content = tomllib.loads(comments_text())
    shared = content["columns"]
    assert [
        (t, c) for t, columns in content["table"].items() for c, text in columns.items() if shared.get(c) == text
    ] == []


def test_a_view_is_described_by_the_head_of_its_file(every):
    heads = {view.name.partition("_")[2]: head_of(view) for view in sql_files("views")}
    assert every[1] == heads
    assert all(head.startswith("One row per ") and "--" not in head for head in heads.values())


def test_changed_comments_are_written_at_the_next_opening_and_unchanged_ones_are_not(tmp_path, monkeypatch):
    written = []
    real = migrations.write_comments
    monkeypatch.setattr(migrations, "write_comments", lambda *args: (written.append(1), real(*args)))

    with writing(tmp_path / "w.duckdb") as con:
        migrate(con)
        migrate(con)
        assert written == [1]

    changed = comments_text().replace("when it was loaded, UTC", "it's new; -- now")
    for module in (texts, migrations):
        monkeypatch.setattr(module, "comments_text", lambda: changed)

    comments.cache_clear()
    with writing(tmp_path / "w.duckdb") as con:
        migrate(con)
        text = con.execute("SELECT comment FROM duckdb_columns() WHERE column_name = 'loaded_at'").fetchone()
        assert (text, without_comment(con), written) == (("it's new; -- now",), [], [1, 1])

    comments.cache_clear()
