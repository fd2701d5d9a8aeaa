import re

import duckdb
import pytest

from tasks.runtime.errors import BadInput
from warehouse import schema
from warehouse.connect import reading, writing
from warehouse.rebuild import current, rebuild
from warehouse.schema import FACTS, TABLES, VIEWS, SqlFile, own_tables, schema_sql, sql_files, tables

WITHOUT_COMMENT = """
SELECT table_name || '.' || column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL
UNION ALL SELECT table_name FROM duckdb_tables() WHERE NOT internal AND comment IS NULL
UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL
ORDER BY 1
"""
RECORDED = "SELECT version, sha256 FROM schema_migrations ORDER BY version"


@pytest.fixture(autouse=True)
def own_digests():
    """A test that changes a file of SQL changes no digest of the next."""
    yield
    for cached in (schema.schema_sql, schema.create_statements, schema.digests):
        getattr(cached, "cache_clear", lambda: None)()


@pytest.fixture
def file(landing):
    """The warehouse of a pair."""
    return landing.parent / "triage.duckdb"


def test_every_table_view_and_column_has_a_comment_in_a_plain_client_after_a_rebuild_too(file, landing):
    for _ in range(2):
        with duckdb.connect(str(file), read_only=True) as con:
            missing = con.execute(WITHOUT_COMMENT).fetchall()
        assert missing == [], "say what it means, with its unit, by COMMENT ON in schema.sql or its view"
        rebuild(landing, file)


def test_a_column_is_described_once_a_view_by_its_grain_and_keys_are_columns(file):
    declared = "\n".join([schema_sql(), *(view.text for view in sql_files("views"))])
    first = {}
    for table, column, text in re.findall(r"^COMMENT ON COLUMN (\S+)\.(\S+) IS (.*);$", declared, re.MULTILINE):
        assert first.setdefault(column, (table, text))[1] != text or first[column][0] == table, (table, column)

    with reading(file) as con:
        sql = "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        comments = {(table, column): text for table, column, text in con.execute(sql).fetchall()}
        of_views = dict(con.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall())
    assert comments["metric", "evaluation_id"] == comments["leaderboard", "evaluation_id"]
    assert comments["training_curve", "loss"] != comments["evaluation", "loss"]
    assert of_views == {view.name.partition("_")[2]: view.head for view in sql_files("views")}
    for sql_file in (*sql_files("views"), *sql_files("audits")):
        assert sql_file.head.startswith("One row per ") and "--" not in sql_file.head, sql_file.name
    assert tables().keys() < own_tables()
    reading_calibration = [
        f.name for f in (*sql_files("views"), *sql_files("queries")) if "calibration_prediction" in f.text
    ]
    assert reading_calibration == [], "rules are chosen on these cases, and nothing is judged on them"
    for fact in FACTS.values():
        for name, key in fact.keys.items():
            assert {fact.id_column, *key} <= set(tables()[name].names), name


def test_a_file_is_made_once_and_records_what_made_it(file):
    with current(file) as con:
        recorded = dict(con.execute(RECORDED).fetchall())
        times = con.execute("SELECT applied_at FROM schema_migrations ORDER BY ALL").fetchall()
    assert recorded == schema.digests() and list(recorded) == [VIEWS, TABLES]
    with current(file) as con:
        assert con.execute("SELECT applied_at FROM schema_migrations ORDER BY ALL").fetchall() == times


def test_a_newer_warehouse_is_refused_and_left_as_it_is(file):
    with writing(file) as con:
        con.execute("UPDATE schema_migrations SET version = version + 1 WHERE version > 0")
    before = file.read_bytes()
    with pytest.raises(BadInput, match="A newer version of triage made this warehouse"), current(file):
        pass
    assert file.read_bytes() == before


def test_changed_views_and_comments_take_the_place_of_the_old_ones_and_rows_stay(file, tmp_path, monkeypatch):
    changed = [
        SqlFile(view.name, view.text + "CREATE OR REPLACE VIEW frontier AS SELECT 1 AS rank;")
        if view.name.endswith("_frontier")
        else view
        for view in sql_files("views")
    ]
    text = schema_sql().replace("'when it was loaded, UTC'", "'it''s new; -- now'")
    monkeypatch.setattr(schema, "sql_files", lambda _: changed)
    monkeypatch.setattr(schema, "schema_sql", lambda: text)
    for cached in (schema.create_statements, schema.digests):
        cached.cache_clear()

    with current(file, root=tmp_path / "none") as con:
        assert con.execute("FROM frontier").fetchall() == [(1,)]
        sql = "SELECT comment FROM duckdb_columns() WHERE column_name = 'loaded_at'"
        assert con.execute(sql).fetchall() == [("it's new; -- now",)]
        assert con.execute("SELECT count(*) FROM landed").fetchone() == (4,)
