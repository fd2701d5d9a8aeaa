"""What the loader works out from landed rows, so that any order of loading gives the same tables:
costs as rows, counts of decisions, which scores were judged again, and the digests of datasets of
earlier versions.
"""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput
from tasks.spec import LABELS
from warehouse.schema import insert

# A dataset's own four sets decide what a training is, so datasets that share them are one for a
# training: the one with the fewest further sets. Rows of earlier versions name the four sets.
_SAME_DATASET = """
WITH one AS (
    SELECT
        sets_digest,
        first(dataset_digest ORDER BY further_sets, dataset_digest) AS dataset_digest
    FROM dataset
    GROUP BY sets_digest
),
renamed AS (
    SELECT sets_digest AS digest, dataset_digest FROM one
    UNION
    SELECT dataset.dataset_digest, one.dataset_digest FROM dataset JOIN one USING (sets_digest)
)
UPDATE {table} SET dataset_digest = renamed.dataset_digest
FROM renamed
WHERE {table}.dataset_digest = renamed.digest
    AND renamed.digest <> renamed.dataset_digest
"""
_OF_ITS_SCORES = """
$id IS NULL
OR scores_id = (SELECT one.scores_id FROM evaluation AS one WHERE one.evaluation_id = $id)
"""
_FORGET_JUDGINGS = f"""
DELETE FROM judged_again
WHERE $id IS NULL
    OR evaluation_id IN (SELECT evaluation_id FROM evaluation WHERE {_OF_ITS_SCORES})
"""
_LATEST_JUDGING = f"""
INSERT INTO judged_again
SELECT evaluation_id, judged_now
FROM (
    SELECT
        evaluation_id,
        first(evaluation_id) OVER (
            PARTITION BY scores_id ORDER BY scoring_version DESC, evaluation_id
        ) AS judged_now
    FROM evaluation
    WHERE {_OF_ITS_SCORES}
)
WHERE evaluation_id <> judged_now
"""
WITH_A_DATASET = ("experiment", "fidelity")


def work_out(con: duckdb.DuckDBPyConnection, kind: str, id: str, folder: Path) -> None:
    """Bring up to date what depends on the rows of a landing folder that have just been replaced."""
    if kind == "evaluation":
        _name_scores(con, id)
        note_judgings(con, id)
        _fill_costs(con, id)
        _count_landed(con, id, folder)
    if kind in ("dataset", "training", "fidelity"):
        name_datasets(con)


def name_datasets(con: duckdb.DuckDBPyConnection) -> None:
    """Give every training and fidelity the one digest of its dataset, where that is known."""
    for table in WITH_A_DATASET:
        con.execute(_SAME_DATASET.format(table=table))


def _name_scores(con: duckdb.DuckDBPyConnection, evaluation: str) -> None:
    """Before scoring version 7 scores had the name of their evaluation."""
    con.execute(
        (
            "UPDATE evaluation SET scores_id = evaluation_id WHERE evaluation_id = ? AND "
            "scores_id IS NULL"
        ),
        [evaluation],
    )


def note_judgings(con: duckdb.DuckDBPyConnection, evaluation: str | None = None) -> None:
    """Bring `judged_again` up to date for the scores of an evaluation, or of all."""
    con.execute(_FORGET_JUDGINGS, {"id": evaluation})
    con.execute(_LATEST_JUDGING, {"id": evaluation})


def count_decisions(con: duckdb.DuckDBPyConnection) -> None:
    """Count the decisions of all evaluations from the rows of their cases."""
    con.execute("DELETE FROM decision_count")
    con.execute("INSERT INTO decision_count FROM recounted_decisions")


def _count_landed(con: duckdb.DuckDBPyConnection, evaluation: str, folder: Path) -> None:
    """Count the decisions of an evaluation from the rows that landed: to find them among those of
    all evaluations takes longer.
    """
    con.execute("DELETE FROM decision_count WHERE evaluation_id = ?", [evaluation])
    path = folder / "prediction.parquet"
    if not path.is_file():
        return

    # The macro takes the name of a table (query_table), so the landed rows need one.
    con.execute("CREATE TEMP TABLE landed_prediction AS FROM prediction LIMIT 0")
    insert(con, "landed_prediction", pq.ParquetFile(path).read())
    con.execute("INSERT INTO decision_count FROM recounted_decisions_in('landed_prediction')")
    con.execute("DROP TABLE landed_prediction")


def _fill_costs(con: duckdb.DuckDBPyConnection, evaluation: str) -> None:
    """The cost matrix of an evaluation as rows. Raises BadInput for one that is none."""
    con.execute("DELETE FROM cost WHERE evaluation_id = ?", [evaluation])
    row = con.execute(
        "SELECT cost_matrix FROM evaluation WHERE evaluation_id = ?", [evaluation]
    ).fetchone()
    if row is None or row[0] is None:
        return

    try:
        matrix = json.loads(row[0])
        costs = [
            [evaluation, label, decision, float(matrix[label][decision])]
            for label in LABELS
            for decision in LABELS
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"Table evaluation: cost_matrix of {evaluation} is not JSON of the form "
            "{truth: {decision: cost}}."
        ) from error

    con.executemany("INSERT INTO cost VALUES (?, ?, ?, ?)", costs)
