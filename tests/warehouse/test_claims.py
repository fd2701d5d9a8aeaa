"""`triage sql claims`: what a figure and its interval say about a sentence, and what a warehouse without rows says."""

import json

import duckdb
import pytest

from tests.place import Place
from tests.warehouse.rows import full, land_pair
from warehouse.cookbook import named_query
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.schema import create_statements, replace_views

IN_POINTS = "At 4 bits accuracy falls by less than 2 %, read as 2 points of accuracy."
RELATIVE = "At 4 bits accuracy falls by less than 2 %, read as 2 % of the accuracy at 8 bits, as published."
SIZE = "Models at 4 bits take about half of what they take at 8 bits."
SIXTY = "There are sixty experiments: six variants under ten recipes."


def verdicts(view: str, rows: str) -> dict[str, str]:
    """The verdict on each sentence where a view shows these rows."""
    with duckdb.connect(":memory:") as con:
        con.execute(create_statements())
        replace_views(con)
        con.execute(f"CREATE TEMP VIEW {view} AS {rows}")
        return {row[0]: row[-1] for row in con.execute(named_query("claims").sql).fetchall()}


def accuracy(low: float | str, high: float | str, qualifies: bool = True) -> str:
    return f"""
        SELECT 'm' AS base_model, 'r' AS recipe, 3 AS seeds, 'argmax' AS rule, 'accuracy' AS metric,
            false AS random_weights, 'test' AS evaluation_set, -0.01 AS difference, {low} AS low, {high} AS high,
            0.64 AS value_8bit, {qualifies} AS qualifies, 'd' AS dataset
    """


def size(model: str, precision: str, stored_bytes: int) -> str:
    return (
        f"SELECT '{model}' AS base_model, '{precision}' AS precision, {stored_bytes} AS stored_bytes, 1 AS parameters, "
        f"{precision[0]} AS bits, false AS random_weights, 'hub' AS weights_source, 'w' AS weights_digest"
    )


def cells(count: int) -> str:
    return f"SELECT range::VARCHAR AS cell_id, 'standard' AS recipe_kind, false AS random_weights FROM range({count})"


def sizes(other: int) -> str:
    rows = [size("a", "4bit", 50), size("a", "8bit", 100), size("b", "4bit", other), size("b", "8bit", 100)]
    return " UNION ALL ".join(rows)


NOTHING = "NULL::DOUBLE"
SUMMARY = "quantization_summary"


@pytest.mark.parametrize(
    ("sentence", "view", "rows", "expected"),
    [
        # The whole interval supports or refutes.
        (IN_POINTS, SUMMARY, accuracy(-0.02, 0.0), "supported"),
        (IN_POINTS, SUMMARY, accuracy(-0.03, 0.0), "cannot conclude"),
        (IN_POINTS, SUMMARY, accuracy(-0.05, -0.03), "refuted"),
        (IN_POINTS, SUMMARY, accuracy(NOTHING, NOTHING), "cannot conclude"),
        (IN_POINTS, SUMMARY, accuracy(-0.05, -0.03, qualifies=False), "not measured here"),
        # 2 % of an accuracy of 0.64 is 1.28 points.
        (RELATIVE, SUMMARY, accuracy(-0.012, 0.012), "supported"),
        (RELATIVE, SUMMARY, accuracy(-0.014, 0.014), "cannot conclude"),
        # More experiments than a study has refute nothing.
        (SIXTY, "leaderboard", cells(22), "cannot conclude"),
        (SIXTY, "leaderboard", cells(60), "supported"),
        (SIXTY, "leaderboard", cells(64), "cannot conclude"),
        # As good as the worst row.
        (SIZE, "variant", sizes(53), "supported"),
        (SIZE, "variant", sizes(80), "refuted"),
    ],
)
def test_the_verdict_on_a_sentence_is_that_of_its_rows(sentence, view, rows, expected):
    assert verdicts(view, rows)[sentence] == expected


def test_the_command_gives_every_sentence_with_its_figure_or_says_that_there_is_none(tmp_path):
    place = Place(tmp_path / "place")
    place.home.mkdir(parents=True)
    land_pair(tmp_path / "landing")
    for bits, stored_bytes in ((4, 53), (8, 100)):
        row = full("variant", variant_id=f"v{bits}", base_model="smol", bits=bits, precision=f"{bits}bit",
                   random_weights=False, stored_bytes=stored_bytes, weights_source="hub")  # fmt: skip
        write_landing(tmp_path / "landing", f"v{bits}", "variant", {"variant": [row]})
    load_all(tmp_path / "landing", place.warehouse)

    result = place.ask("sql", "claims", "--format", "json")
    rows = {row.pop("sentence"): row for row in json.loads(result.stdout)}
    assert (result.returncode, len(rows)) == (0, 11)
    assert rows[SIZE] == {"source": "smol", "value": 0.53, "low": 0.53, "high": 0.53, "verdict": "supported"}
    missing = rows["SmolLM2-360M takes about 360 MB at 4 bits (exact: 203.6 MB)."]
    assert missing == {"source": None, "value": None, "low": None, "high": None, "verdict": "not measured here"}
