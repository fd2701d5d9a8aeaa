"""Parameters, and what a result is in Python: whole numbers stay whole, in pandas and in Arrow."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from tasks.runtime.errors import BadInput
from tests.warehouse.rows import land_pair
from warehouse.connect import warehouse_path
from warehouse.load import load_all
from warehouse.query import query, query_rows

NUMBERS = "SELECT unnest([9007199254740993, NULL]) AS n, unnest([true, NULL]) AS b, 1.5 AS d, DATE '2026-01-01' AS day"


@pytest.fixture(autouse=True)
def loaded(tmp_path):
    land_pair(tmp_path / "landing")
    load_all(tmp_path / "landing", warehouse_path())


def test_parameters_are_values_by_name():
    sql = "SELECT evaluation_id FROM evaluation WHERE evaluation_id = $id AND cases >= $cases"
    assert query(sql, {"id": "e4", "cases": 5}).evaluation_id.tolist() == ["e4"]
    assert query_rows(sql, {"id": "e4", "cases": 6}).rows == []
    assert query_rows("SELECT $text", {"text": "'; DROP TABLE prediction; --"}).rows == [
        ("'; DROP TABLE prediction; --",)
    ]


@pytest.mark.parametrize(
    ("sql", "params", "sentence"),
    [
        ("SELECT $a + $b", {"a": 1}, r"^The query needs a value for its parameter \$b\.$"),
        ("SELECT $a", None, r"^The query needs a value for its parameter \$a\.$"),
        ("SELECT $a", {"a": 1, "c": 2}, r"^The query has no parameter \$c; it has \$a\.$"),
        ("SELECT $bits", {"bit": 2}, r"^The query has no parameter \$bit; it has \$bits\.$"),
        ("SELECT 1", {"c": 2}, r"^The query has no parameter \$c; it has none\.$"),
        ("SELECT $a::INTEGER", {"a": "four"}, "^The query failed: Could not convert string 'four' to INT32.$"),
        ("SELECT 1", "bits", "^Parameters are values by name"),
        ("SELECT $a", {"a": object()}, "^The query failed: "),
    ],
)
def test_a_missing_unknown_or_mistyped_parameter_is_a_sentence(sql, params, sentence):
    for run in (query, query_rows):
        with pytest.raises(BadInput, match=sentence) as caught:
            run(sql, params)
        assert "\n" not in str(caught.value)


def test_whole_numbers_and_truth_values_stay_what_they_are_where_some_are_missing():
    frame = query(NUMBERS)
    assert [str(type_).partition("[")[0] for type_ in frame.dtypes] == ["Int64", "boolean", "float64", "datetime64"]
    assert frame.n[0] == 9007199254740993 and frame.n[1] is pd.NA and frame.b[1] is pd.NA
    summed = query("SELECT sum(cases) AS n, sum(9000000000000000000) AS large FROM evaluation")
    assert (str(summed.n.dtype), str(summed.large.dtype)) == ("Int64", "float64") and summed.n[0] == 10


def test_arrow_has_the_same_columns():
    table = query(NUMBERS, as_="arrow")
    assert isinstance(table, pa.Table) and table.column("n").to_pylist() == [9007199254740993, None]
    assert query("SELECT sum(cases) AS n FROM evaluation", as_="arrow").schema.field("n").type == pa.int64()
    with pytest.raises(BadInput, match="'polars' is not a form of result; give 'pandas' or 'arrow'"):
        query("SELECT 1", as_="polars")
    with pytest.raises(BadInput, match="^Queries only read"):
        query("DROP TABLE prediction", as_="arrow")
