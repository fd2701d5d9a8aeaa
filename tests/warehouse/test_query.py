import re
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from tasks.runtime.errors import BadInput
from tests.place import ROOT
from warehouse.connect import warehouse_path
from warehouse.query import Bounds, Rows, query, query_rows

NUMBERS = "SELECT unnest([9007199254740993, NULL]) AS n, unnest([true, NULL]) AS b, 1.5 AS d, DATE '2026-01-01' AS day"


@pytest.fixture(autouse=True)
def loaded(landing, monkeypatch):
    monkeypatch.chdir(landing.parent)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT * FROM prediction", 10),
        ("  -- a comment\n FROM prediction;", 10),
        ("WITH p AS (FROM prediction) SELECT * FROM p LIMIT 3", 3),
        ("DESCRIBE leaderboard", None),
        ("SHOW TABLES", None),
        ("SUMMARIZE prediction", 13),
        ("PIVOT prediction ON argmax USING count(*) GROUP BY evaluation_id", 2),
        ("PIVOT prediction ON argmax IN ('ED') USING count(*) GROUP BY evaluation_id", 2),
    ],
)
def test_reading_statements_give_a_data_frame(sql, rows):
    frame = query(sql)
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == rows if rows is not None else len(frame) > 5
    light = query_rows(sql)
    assert (list(light.columns), len(light.rows)) == (list(frame.columns), len(frame))


def test_rows_come_as_python_values_with_the_types_of_their_columns_and_parameters_are_values():
    sql = "SELECT 1 AS n, 0.5::DOUBLE AS x, NULL AS nothing, [1, 2] AS list, 'a' AS word"
    nothing = "INTEGER" if duckdb.__version__.startswith("1.") else "NULL"  # the type of a column of NULL
    types = ("INTEGER", "DOUBLE", nothing, "INTEGER[]", "VARCHAR")
    assert query_rows(sql) == Rows(("n", "x", "nothing", "list", "word"), types, [(1, 0.5, None, [1, 2], "a")])
    assert query_rows("FROM range(5)", most=5) == Rows(("range",), ("BIGINT",), [(i,) for i in range(5)])
    assert query_rows("FROM range(6)", most=5).cut and len(query_rows("FROM range(6)", most=5).rows) == 5
    assert len(query_rows("FROM range(25000)").rows) == 25000

    sql = "SELECT evaluation_id FROM evaluation WHERE evaluation_id = $id AND cases >= $cases"
    assert query(sql, {"id": "e4", "cases": 5}).evaluation_id.tolist() == ["e4"]
    assert query_rows(sql, {"id": "e4", "cases": 6}).rows == []
    text = "'; DROP TABLE prediction; --"
    assert query_rows("SELECT $text", {"text": text}).rows == [(text,)]


def test_every_view_of_evaluations_shows_those_alone_that_are_asked_for():
    of_views = """
        SELECT view_name FROM duckdb_views() JOIN duckdb_columns() ON table_name = view_name
        WHERE NOT duckdb_views.internal AND column_name = 'evaluation_id'
    """
    views = [view for (view,) in query_rows(of_views).rows]
    assert {"case_answer", "confusion_matrix", "leaderboard", "seed_group"} <= set(views)
    assert query_rows("SELECT evaluation_id FROM evaluation_summary", only=["e8"]).rows == [("e8",)]
    of_each = " UNION ALL ".join(f"SELECT '{view}', evaluation_id FROM {view}" for view in views)
    others = query_rows(f"FROM ({of_each}) AS one (view, id) WHERE id <> 'e8'", only=["e8"]).rows
    assert others == []


REFUSED = [
    "INSERT INTO landed VALUES ('x', 'training', 'y', now()::TIMESTAMP)",
    "DELETE FROM prediction",
    "UPDATE evaluation SET verdict = 'passes_gates'",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE OR REPLACE VIEW leaderboard AS SELECT 1",
    "DROP TABLE prediction",
    "WITH gone AS (DELETE FROM prediction RETURNING case_id) SELECT * FROM gone",
    "COPY prediction TO 'out.csv'",
    "COPY (SELECT 1) TO 'out.parquet'",
    "EXPORT DATABASE 'out'",
    "ATTACH 'out.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "CALL pragma_version()",
    "CHECKPOINT",
    "PREPARE later AS SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE prediction",
    "PIVOT prediction ON argmax USING count(*); DROP TABLE prediction",
    "FROM read_csv('/etc/passwd')",
    "FROM read_text('/etc/passwd')",
    "FROM read_blob('landing/e4/manifest.json')",
    "FROM '/etc/passwd'",
    "FROM 'landing/e4/metric.parquet'",
    "FROM glob('/etc/*')",
    "FROM sniff_csv('/etc/passwd')",
    "FROM enable_logging(storage = 'file', storage_path = 'out')",
    "FROM frame",
    "SELECT nonsense FROM prediction",
    "SELEC 1",
    "SELECT * FROM",
    "",
    "-- nothing",
]


def test_everything_else_is_refused_in_a_sentence_and_changes_nothing(landing):
    frame = pd.DataFrame({"a": [1]})
    before = sorted(landing.parent.rglob("*"))
    content = warehouse_path().read_bytes()
    for sql in REFUSED:
        if sql.startswith("FROM enable_logging") and duckdb.__version__.startswith("1."):
            query(sql)  # DuckDB 1.5 takes it, and then writes nothing: external access is off
        else:
            with pytest.raises(BadInput) as caught:
                query(sql)
            assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?")), sql
        assert sorted(landing.parent.rglob("*")) == before and warehouse_path().read_bytes() == content, sql
    assert len(query("FROM prediction")) == 10 and len(frame) == 1


def test_the_users_own_connection_is_distinguished_from_another_process():
    match = "open in another connection; close that one first"
    with duckdb.connect(str(warehouse_path())), pytest.raises(BadInput, match=match):
        query("FROM prediction")


def test_bounds_hold_where_they_are_given_and_nowhere_else():
    with pytest.raises(BadInput, match="stopped after 0.2 seconds; .* --seconds"):
        query("SELECT count(*) FROM range(10000000000) WHERE hash(range) % 7 = 3", bounds=Bounds(seconds=0.2))
    sql = "SELECT len(list(range)) FROM range(20000000)"
    with pytest.raises(BadInput, match="more than 100,000,000 bytes of memory; .* --memory"):
        query_rows(sql, bounds=Bounds(memory=100_000_000))
    assert query_rows(sql).rows == [(20_000_000,)]
    assert query("FROM prediction", bounds=Bounds(100_000_000, 60.0)).shape[0] == 10


@pytest.mark.parametrize(
    ("sql", "params", "sentence"),
    [
        ("SELECT $a + $b", {"a": 1}, r"^The query needs a value for its parameter \$b\.$"),
        ("SELECT $a", {"a": 1, "c": 2}, r"^The query has no parameter \$c; it has \$a\.$"),
        ("SELECT 1", {"c": 2}, r"^The query has no parameter \$c; it has none\.$"),
        ("SELECT $a::INTEGER", {"a": "four"}, "^The query failed: Could not convert string 'four' to INT32.$"),
        ("SELECT 1", "bits", "^Parameters are values by name"),
        ("SELECT $a", {"a": object()}, "^The query failed: "),
        ("SELECT verdit FROM evaluation", None, r"^The query failed: .* \"verdit\" not found.*\"verdict\""),
    ],
)
def test_a_missing_unknown_or_mistyped_name_is_a_sentence(sql, params, sentence):
    for run in (query, query_rows):
        with pytest.raises(BadInput, match=sentence) as caught:
            run(sql, params)
        assert "\n" not in str(caught.value)


def test_whole_numbers_and_truth_values_stay_what_they_are_where_some_are_missing_in_both_forms_of_result():
    frame = query(NUMBERS)
    assert [str(type_).partition("[")[0] for type_ in frame.dtypes] == ["Int64", "boolean", "float64", "datetime64"]
    assert frame.n[0] == 9007199254740993 and frame.n[1] is pd.NA and frame.b[1] is pd.NA
    sums = "SELECT sum(cases) AS n, sum(9000000000000000000) AS large FROM evaluation"
    summed = query(sums)
    assert (str(summed.n.dtype), str(summed.large.dtype)) == ("Int64", "float64") and summed.n[0] == 10

    table = query(NUMBERS, as_="arrow")
    assert isinstance(table, pa.Table) and table.column("n").to_pylist() == [9007199254740993, None]
    assert query(sums, as_="arrow").schema.field("n").type == pa.int64()
    with pytest.raises(BadInput, match="'polars' is not a form of result; give 'pandas' or 'arrow'"):
        query("SELECT 1", as_="polars")


def test_the_readmes_chart_is_made_by_a_query_and_ten_lines():
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "warehouse" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    names: dict[str, object] = {}
    exec(code, names)

    assert Path("forest.svg").read_text().startswith("<svg")
    expected = query("SELECT ed_recall_diff, ed_recall_low, ed_recall_high FROM quantization_comparison")
    assert names["rows"][list(expected)].equals(expected) and len(expected) == 1
