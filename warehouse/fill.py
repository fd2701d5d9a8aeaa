"""The rows of landing folders into the tables of an open warehouse, a transaction each.

The order of folders does not matter: a pair is computed again whenever one of its sides is filled
in, and a pool of pairs whenever one of them is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.store import read_manifest
from warehouse.comparison import pools
from warehouse.connect import transaction, utc_now
from warehouse.landing import LandingManifest, kind_of
from warehouse.schema import FACTS, Kind, insert, refuse_equal_keys, refuse_newer_columns

_SEALED = "SELECT evaluation_id FROM sealed_evaluation ORDER BY ALL"
# A dataset's own four sets decide what a training is, so datasets that share them are one for a
# training: the one with the fewest further sets.
_SAME_DATASET = """
WITH renamed AS (
    SELECT
        dataset_digest AS digest,
        first(dataset_digest) OVER (
            PARTITION BY sets_digest ORDER BY further_sets, dataset_digest
        ) AS one
    FROM dataset
)
UPDATE {table} SET dataset_digest = renamed.one
FROM renamed
WHERE {table}.dataset_digest = renamed.digest AND renamed.digest <> renamed.one
"""
_LATEST_JUDGING = """
INSERT INTO judged_again
SELECT
    evaluation_id,
    first(evaluation_id) OVER (
        PARTITION BY scores_id ORDER BY scoring_version DESC, evaluation_id
    ) AS judged_now
FROM evaluation
WHERE scores_id IS NOT NULL
QUALIFY evaluation_id <> judged_now
"""
_COSTS = """
INSERT INTO cost
SELECT
    evaluation_id,
    label,
    decision,
    json_extract_string(cost_matrix, '$.' || label || '.' || decision)::DOUBLE
FROM evaluation
CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS truths (label)
CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS decisions (decision)
WHERE evaluation_id = ? AND cost_matrix IS NOT NULL
"""
PART_SECONDS = 2.0  # for which a long load holds the file


@dataclass
class LoadReport:
    """Ids that were loaded, ids that were loaded before, why folders were refused, and how many of
    each kind were skipped that this version does not know.

    `contents`: ids and digests of what is loaded now.
    """

    loaded: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    contents: set[tuple[str, str]] = field(default_factory=set)


def landed_at(folder: Path) -> str:
    """When a folder landed, "" where it does not say: of two runs of a cell the later one is loaded
    later, in a rebuild too.
    """
    try:
        manifest = read_manifest(folder) or {}
    except (TriageError, OSError):  # its turn says what is wrong with it
        return ""
    return str(manifest.get("created") or "")


def fill_part(
    con: duckdb.DuckDBPyConnection,
    folders: list[Path],
    report: LoadReport,
    after_each: Callable[[], object] = lambda: None,
) -> None:
    """Fill in folders, and take them off the list, until the time of a part is over; the last part
    makes the figures of pools. A broken folder does not stop the others.
    """
    end = time.monotonic() + PART_SECONDS
    while folders and time.monotonic() < end:
        folder = folders.pop(0)
        try:
            manifest = LandingManifest.read(folder, deep=True)
            if kind_of(folder, manifest) is None:
                report.skipped[str(manifest.kind)] += 1
            else:
                is_new = fill(con, folder, manifest)
                (report.loaded if is_new else report.unchanged).append(folder.name)
            report.contents.add((folder.name, manifest.digest))
        except (TriageError, OSError) as error:  # or another sweep is replacing it
            report.refused[folder.name] = str(error)
        after_each()

    if not folders and report.loaded:
        pools.refresh(con)


def is_loaded(con: duckdb.DuckDBPyConnection, id: str, digest: str) -> bool:
    """Whether exactly this content of a landing folder is loaded."""
    query = "SELECT 1 FROM landed WHERE id = ? AND manifest_digest = ?"
    return con.execute(query, [id, digest]).fetchone() is not None


def fill(con: duckdb.DuckDBPyConnection, folder: Path, manifest: LandingManifest) -> bool:
    """Fill in a folder; False if its content is there already, or of a kind that is unknown."""
    id = folder.name
    kind = kind_of(folder, manifest)
    if kind is None or is_loaded(con, id, manifest.digest):
        return False

    from warehouse.comparison import pairs  # SciPy: commands that only read do without

    try:
        with transaction(con):
            sealed = con.execute(_SEALED).fetchall() if kind in ("sweep", "look") else []
            _replace_rows(con, folder, kind)
            if kind == "evaluation":
                note_judgings(con)
                con.execute(_COSTS, [id])
                con.execute("INSERT INTO decision_count FROM recounted_decisions_of([?])", [id])
            if kind in ("dataset", "training"):
                con.execute(_SAME_DATASET.format(table="experiment"))
            if kind in ("dataset", "fidelity"):
                con.execute(_SAME_DATASET.format(table="fidelity"))

            entry = [id, kind, manifest.digest, utc_now()]
            con.execute("INSERT INTO landed VALUES (?, ?, ?, ?)", entry)
            # Last: pairs are matched by the costs and the data digest.
            if kind == "dataset":  # which names datasets again, those of any training
                pairs.refresh(con)
            elif kind in ("training", "evaluation"):
                pairs.refresh(con, id)
            # A claim seals pairs, and a look opens them; few of a sweep's many landings change either.
            elif kind in ("sweep", "look") and con.execute(_SEALED).fetchall() != sealed:
                pairs.refresh(con)
    except BadInput as error:
        raise BadInput(f"{folder}: {error}") from error

    return True


def _replace_rows(con: duckdb.DuckDBPyConnection, folder: Path, kind: Kind) -> None:
    """Delete and insert: a row-wise merge would keep rows that the new content no longer has."""
    fact = FACTS[kind]
    # A deletion reads the whole table.
    if con.execute("SELECT 1 FROM landed WHERE id = ?", [folder.name]).fetchone():
        derived = ("cost", "decision_count") if kind == "evaluation" else ()
        for name in (*fact.tables, *derived):
            con.execute(f"DELETE FROM {name} WHERE {fact.id_column} = ?", [folder.name])
        con.execute("DELETE FROM landed WHERE id = ?", [folder.name])

    for name in fact.tables:
        path = folder / f"{name}.parquet"
        if path.is_file():
            rows = pq.ParquetFile(path).read()
            refuse_newer_columns(name, rows.column_names)
            refuse_equal_keys(name, fact, rows)
            insert(con, name, rows)


def note_judgings(con: duckdb.DuckDBPyConnection) -> None:
    """Bring `judged_again` up to date."""
    con.execute("DELETE FROM judged_again")
    con.execute(_LATEST_JUDGING)
