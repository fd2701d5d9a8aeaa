"""`triage sql claims`: rows that support a sentence, rows that refute it, and a warehouse without rows."""

import json
from functools import cache

import duckdb
import pytest

from tests.place import Place
from tests.warehouse.rows import full, land_pair
from warehouse.cookbook import named_query
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.schema import create_statements, replace_views

RECALL = "The safety recipes find at least 95 % of the emergencies."
TARGET = "Each safety recipe finds its target of the emergencies, 95 to 98 %."
F2 = "The safety recipes have an F2 of emergencies of at least 0.90."
MISSED = "The safety recipes miss at most 5 % of the emergencies."
REVIEW = "Dropout finds uncertain cases: of missed emergencies more than a random flag of its load."
IN_POINTS = "At 4 bits accuracy falls by less than 2 %, read as 2 points of accuracy."
RELATIVE = "At 4 bits accuracy falls by less than 2 %, read as 2 % of the accuracy at 8 bits."
HALF = "Models at 4 bits take about half of what they take at 8 bits."
SIZE = "A parameter takes 1 byte at 4 bits and 2 at 8: SmolLM2-360M 360 and 720 MB."
TRAINED = "Only 0.1 to 0.4 % of the parameters are trained."
MEMORY = "4 bits leave room for larger batches: a training needs less memory than at 8 bits."
FASTER = "Training is faster at 4 bits than at 8 bits."
NOTHING = "NULL::DOUBLE"
View = dict[str, str]  # the rows of a view, by its name


SOURCES = ("leaderboard", "review_flag", "quantization_summary", "quantization_comparison", "variant", "experiment")


@cache
def without_rows() -> duckdb.DuckDBPyConnection:
    """What the query reads, as tables without rows, in memory: to plan the views takes half a second."""
    whole, con = duckdb.connect(":memory:"), duckdb.connect(":memory:")
    whole.execute(create_statements())
    replace_views(whole)
    for source in SOURCES:
        columns = whole.sql(f"FROM {source} LIMIT 0").to_arrow_table()  # noqa: F841 (DuckDB finds it by its name)
        con.execute(f"CREATE TABLE {source} AS FROM columns")
    return con


def claims(views: View) -> dict[str, dict[str, object]]:
    """What `claims` says of each sentence where views show these rows."""
    with without_rows().cursor() as con:  # with temporary views of its own
        for view, rows in views.items():
            con.execute(f"CREATE TEMP VIEW {view} AS {rows}")
        result = con.execute(named_query("claims").sql)
        names = [column[0] for column in result.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in result.fetchall()}


def safety(recall=(0.99, 0.98, 1.0), f2=(0.92, 0.91, 0.93), kind="safety", random_weights=False) -> View:
    """A model of a recipe with the target 0.96."""
    names = zip(("", "_low", "_high"), recall, f2, strict=True)
    figures = ", ".join(f"{r} AS ed_recall{end}, {f} AS ed_f2{end}" for end, r, f in names)
    return {
        "leaderboard": f"SELECT 'model' AS cell_id, 'e' AS evaluation_id, '{kind}' AS recipe_kind, "
        f"{random_weights} AS random_weights, 0.96 AS target_ed_recall, {figures}"
    }


def both(first: View, second: View) -> View:
    return {view: f"{rows} UNION ALL {second[view]}" for view, rows in first.items()}


def review(low: float | str, high: float | str) -> View:
    return safety() | {
        "review_flag": f"SELECT 'e' AS evaluation_id, 'vote_entropy' AS score, 0.13 AS load, 0.3 AS missed_ed_flagged, "
        f"{low} AS missed_ed_flagged_low, {high} AS missed_ed_flagged_high"
    }


def accuracy(low: float | str, high: float | str, seeds=3, qualifies="true") -> View:
    return {
        "quantization_summary": f"SELECT 'smol' AS base_model, 'tuned' AS recipe, 'argmax' AS rule, 'accuracy' AS metric, "
        f"false AS random_weights, 'test' AS evaluation_set, -0.01 AS difference, {low} AS low, {high} AS high, "
        f"0.64 AS value_8bit, {seeds} AS seeds, {qualifies} AS qualifies, 'd' AS dataset"
    }


def sizes(four: int, eight: int = 200, model: str = "a") -> View:
    """Bytes of 100 parameters."""
    of_bits = [
        f"SELECT '{model}' AS base_model, '{bits}bit' AS precision, {stored_bytes} AS stored_bytes, 100 AS parameters, "
        "false AS random_weights, 'hub' AS weights_source, 'w' AS weights_digest"
        for bits, stored_bytes in ((4, four), (8, eight))
    ]
    return {"variant": " UNION ALL ".join(of_bits)}


# As published, SmolLM2-360M too, whose exact sizes stand beside those of other models.
PUBLISHED = both(sizes(100), sizes(100, model="smollm2-360m"))


def trained(share: float, num_layers: int = 16) -> View:
    return {
        # A row of NULLs of the table's types, which views read, too.
        "experiment": "SELECT x.* REPLACE ('a' AS base_model, 'r' AS recipe, 'standard' AS recipe_kind, "
        f"false AS random_weights, 'w' AS weights_digest, {num_layers} AS num_layers, "
        f"{share} * 1000 AS trainable_parameters) FROM (SELECT 1) LEFT JOIN memory.main.experiment AS x ON true",
        "variant": "SELECT 'a' AS base_model, 'w' AS weights_digest, 1000 AS parameters, '4bit' AS precision, "
        "500 AS stored_bytes, false AS random_weights, 'hub' AS weights_source",
    }


def training_cost(ratio: float | str) -> View:
    """Of a pair; NULL where a backend's cost cannot be compared."""
    return {
        "quantization_comparison": "SELECT 'a' AS base_model, 'r' AS recipe, 42 AS seed, false AS random_weights, "
        f"{ratio} AS peak_memory_bytes_4bit, 1 AS peak_memory_bytes_8bit, {ratio} AS train_seconds_4bit, "
        "1 AS train_seconds_8bit"
    }


@pytest.mark.parametrize(
    ("sentence", "views", "expected"),
    [
        (RECALL, safety(), "supported"),
        (RECALL, safety(recall=(0.96, 0.94, 0.98)), "cannot conclude"),
        (RECALL, safety(recall=(0.92, 0.90, 0.94)), "refuted"),
        (RECALL, safety(recall=(0.92, 0.90, 0.94), kind="standard"), "not measured here"),
        (RECALL, safety(recall=(0.92, 0.90, 0.94), random_weights=True), "not measured here"),
        (RECALL, safety(recall=(NOTHING, NOTHING, NOTHING)), "not measured here"),
        (RECALL, safety(recall=(0.99, NOTHING, NOTHING)), "cannot conclude"),
        (TARGET, safety(), "supported"),
        (TARGET, safety(recall=(0.97, 0.955, 0.98)), "cannot conclude"),
        (TARGET, safety(recall=(0.94, 0.93, 0.955)), "refuted"),
        (F2, safety(), "supported"),
        (F2, safety(f2=(0.78, 0.76, 0.80)), "refuted"),
        (MISSED, safety(), "supported"),
        (MISSED, safety(recall=(0.96, 0.94, 0.98)), "cannot conclude"),
        (MISSED, safety(recall=(0.94, 0.92, 0.96)), "cannot conclude"),
        (MISSED, safety(recall=(0.93, 0.92, 0.94)), "refuted"),
        # The worst of two models decides.
        (RECALL, both(safety(), safety(recall=(0.92, 0.90, 0.94))), "refuted"),
        (RECALL, both(safety(recall=(0.96, 0.94, 0.98)), safety()), "cannot conclude"),
        # A random flag catches its load, 0.13.
        (REVIEW, review(0.2, 0.5), "supported"),
        (REVIEW, review(0.0, 0.1), "refuted"),
        (REVIEW, review(0.03, 0.32), "cannot conclude"),
        (REVIEW, review(NOTHING, NOTHING), "cannot conclude"),
        (IN_POINTS, accuracy(-0.02, 0.0), "supported"),
        (IN_POINTS, accuracy(-0.03, 0.0), "cannot conclude"),
        (IN_POINTS, accuracy(-0.05, -0.03), "refuted"),
        (IN_POINTS, accuracy(NOTHING, NOTHING), "cannot conclude"),
        # One training leaves its own chance out; models that learned little cannot lose much.
        (IN_POINTS, accuracy(-0.01, 0.0, seeds=1), "cannot conclude"),
        (IN_POINTS, accuracy(-0.05, -0.03, seeds=1), "cannot conclude"),
        (IN_POINTS, accuracy(-0.01, 0.0, qualifies="false"), "cannot conclude"),
        (IN_POINTS, accuracy(-0.01, 0.0, qualifies="NULL::BOOLEAN"), "cannot conclude"),
        (IN_POINTS, accuracy(-0.05, -0.03, qualifies="false"), "refuted"),
        (IN_POINTS, both(accuracy(-0.02, 0.0), accuracy(-0.05, -0.03)), "refuted"),
        (IN_POINTS, both(accuracy(-0.05, -0.03), accuracy(-0.2, -0.1, seeds=1)), "refuted"),
        # 2 % of an accuracy of 0.64 is 1.28 points.
        (RELATIVE, accuracy(-0.0127, 0.0), "supported"),
        (RELATIVE, accuracy(-0.0129, 0.0), "cannot conclude"),
        (RELATIVE, accuracy(-0.05, -0.0129), "refuted"),
        (HALF, sizes(106), "supported"),
        (HALF, both(sizes(106), sizes(160, model="b")), "refuted"),
        (SIZE, PUBLISHED, "supported"),
        (SIZE, sizes(100), "refuted"),
        (SIZE, both(PUBLISHED, sizes(53, 106, model="b")), "refuted"),
        (TRAINED, trained(0.002), "supported"),
        (TRAINED, trained(0.019, num_layers=8), "refuted"),
        (MEMORY, training_cost(0.6), "supported"),
        (MEMORY, training_cost(1.2), "refuted"),
        (MEMORY, training_cost(NOTHING), "not measured here"),
        (MEMORY, both(training_cost(NOTHING), training_cost(0.6)), "supported"),
        (FASTER, training_cost(0.6), "supported"),
        (FASTER, training_cost(1.2), "refuted"),
    ],
)
def test_rows_support_a_sentence_or_refute_it(sentence, views, expected):
    assert claims(views)[sentence]["verdict"] == expected


def test_the_worst_row_is_shown_with_how_many_there_are():
    models = both(safety(), both(safety(recall=(0.93, 0.92, 0.94)), safety(recall=(0.90, 0.89, 0.91))))
    row = claims(models)[RECALL]
    assert (row["rows"], row["refuting"], row["value"], row["low"], row["high"]) == (3, 2, 0.90, 0.89, 0.91)


def test_every_sentence_says_where_the_study_has_it_and_only_exact_sizes_stand_in_an_empty_warehouse(tmp_path):
    place = Place(tmp_path / "place")
    place.home.mkdir(parents=True)
    land_pair(tmp_path / "landing", random_weights=True)
    row = full("variant", variant_id="v", base_model="smol", precision="4bit", random_weights=True, stored_bytes=5,
               parameters=9, weights_source="random")  # fmt: skip
    write_landing(tmp_path / "landing", "v", "variant", {"variant": [row]})
    load_all(tmp_path / "landing", place.warehouse)

    result = place.ask("sql", "claims", "--format", "json")
    of_random = {row["sentence"]: row for row in json.loads(result.stdout)}
    assert result.returncode == 0 and all(row["said_in"] for row in of_random.values())
    empty = claims({})
    assert {sentence: row["verdict"] for sentence, row in empty.items()} == {
        sentence: row["verdict"] for sentence, row in of_random.items()
    }
    judged = {sentence: row for sentence, row in empty.items() if row["verdict"] != "not measured here"}
    assert {sentence: row["verdict"] for sentence, row in judged.items()} == {HALF: "supported", SIZE: "refuted"}
    assert (judged[SIZE]["rows"], judged[SIZE]["worst_row"]) == (2, "smollm2-360m 8bit by its shape")
    assert set(empty) == {RECALL, TARGET, F2, MISSED, REVIEW, IN_POINTS, RELATIVE, HALF, SIZE, TRAINED, MEMORY, FASTER}
