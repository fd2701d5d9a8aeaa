from functools import cache

import duckdb
import pytest

from tests.warehouse.rows import full, land_pair
from warehouse.cookbook import named_query
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query
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
    """Of the evaluation of `safety`; a random flag catches its load, 0.13."""
    return {
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


YES, NO, OPEN, ABSENT = "supported", "refuted", "cannot conclude", "not measured here"
LOW = (0.92, 0.90, 0.94)
WORSE = accuracy(-0.05, -0.03)
SCENARIOS = [
    (
        safety() | review(0.2, 0.5) | accuracy(-0.02, 0.0) | PUBLISHED | training_cost(0.6),
        dict.fromkeys((RECALL, TARGET, F2, MISSED, REVIEW, IN_POINTS, SIZE, MEMORY, FASTER), YES),
    ),
    (
        safety((0.96, 0.94, 0.98)) | review(0.0, 0.1) | accuracy(-0.03, 0.0) | sizes(100) | training_cost(1.2),
        {RECALL: OPEN, MISSED: OPEN, IN_POINTS: OPEN, **dict.fromkeys((REVIEW, SIZE, MEMORY, FASTER), NO)},
    ),
    (
        safety(LOW, (0.78, 0.76, 0.80)) | review(0.03, 0.32) | both(PUBLISHED, sizes(53, 106, "b")) | WORSE,
        {RECALL: NO, F2: NO, REVIEW: OPEN, SIZE: NO, IN_POINTS: NO},
    ),
    (
        safety(LOW, kind="standard") | accuracy(NOTHING, NOTHING) | sizes(106) | training_cost(NOTHING),
        {RECALL: ABSENT, IN_POINTS: OPEN, HALF: YES, MEMORY: ABSENT},
    ),
    # One training leaves its own chance out; models that learned little cannot lose much.
    (
        safety(LOW, random_weights=True) | accuracy(-0.01, 0.0, seeds=1) | both(sizes(106), sizes(160, model="b")),
        {RECALL: ABSENT, IN_POINTS: OPEN, HALF: NO},
    ),
    (
        safety((NOTHING,) * 3) | accuracy(-0.05, -0.03, seeds=1) | both(training_cost(NOTHING), training_cost(0.6)),
        {RECALL: ABSENT, IN_POINTS: OPEN, MEMORY: YES},
    ),
    (
        safety((0.99, NOTHING, NOTHING)) | accuracy(-0.01, 0.0, qualifies="false") | trained(0.002),
        {RECALL: OPEN, IN_POINTS: OPEN, TRAINED: YES},
    ),
    (
        safety((0.97, 0.955, 0.98)) | accuracy(-0.01, 0.0, qualifies="NULL::BOOLEAN") | review(NOTHING, NOTHING),
        {TARGET: OPEN, IN_POINTS: OPEN, REVIEW: OPEN},
    ),
    (
        safety((0.94, 0.93, 0.955)) | accuracy(-0.05, -0.03, qualifies="false") | trained(0.019, num_layers=8),
        {TARGET: NO, IN_POINTS: NO, TRAINED: NO},
    ),
    # The worst of two models decides.
    (safety((0.94, 0.92, 0.96)) | both(accuracy(-0.02, 0.0), WORSE), {MISSED: OPEN, IN_POINTS: NO}),
    (safety((0.93, 0.92, 0.94)) | both(WORSE, accuracy(-0.2, -0.1, seeds=1)), {MISSED: NO, IN_POINTS: NO}),
    # 2 % of an accuracy of 0.64 is 1.28 points.
    (both(safety(), safety(LOW)) | accuracy(-0.0127, 0.0), {RECALL: NO, RELATIVE: YES}),
    (both(safety((0.96, 0.94, 0.98)), safety()) | accuracy(-0.0129, 0.0), {RECALL: OPEN, RELATIVE: OPEN}),
    (accuracy(-0.05, -0.0129), {RELATIVE: NO}),
]


@pytest.mark.parametrize(("views", "expected"), SCENARIOS)
def test_rows_support_a_sentence_or_refute_it(views, expected):
    rows = claims(views)
    assert {sentence: rows[sentence]["verdict"] for sentence in expected} == expected


def test_the_worst_row_is_shown_with_how_many_there_are():
    models = both(safety(), both(safety(recall=(0.93, 0.92, 0.94)), safety(recall=(0.90, 0.89, 0.91))))
    row = claims(models)[RECALL]
    assert (row["rows"], row["refuting"], row["value"], row["low"], row["high"]) == (3, 2, 0.90, 0.89, 0.91)


def test_every_sentence_says_where_the_study_has_it_and_only_exact_sizes_stand_in_an_empty_warehouse(tmp_path):
    land_pair(tmp_path, random_weights=True)
    row = full("variant", variant_id="v", base_model="smol", precision="4bit", random_weights=True, stored_bytes=5,
               parameters=9, weights_source="random")  # fmt: skip
    write_landing(tmp_path, "v", "variant", {"variant": [row]})
    load_all(tmp_path, tmp_path / "w.duckdb")

    of_random = query(named_query("claims").sql, database=tmp_path / "w.duckdb").set_index("sentence")
    assert of_random.said_in.all()
    empty = claims({})
    assert {sentence: row["verdict"] for sentence, row in empty.items()} == of_random.verdict.to_dict()
    judged = {sentence: row for sentence, row in empty.items() if row["verdict"] != ABSENT}
    assert {sentence: row["verdict"] for sentence, row in judged.items()} == {HALF: YES, SIZE: NO}
    assert (judged[SIZE]["rows"], judged[SIZE]["worst_row"]) == (2, "smollm2-360m 8bit by its shape")
    assert set(empty) == {RECALL, TARGET, F2, MISSED, REVIEW, IN_POINTS, RELATIVE, HALF, SIZE, TRAINED, MEMORY, FASTER}
