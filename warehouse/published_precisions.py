"""The rows of a published study whose adapters were judged at further precisions.

Their predictions are too many to be published: those of seventy evaluations take more than twice
the space that a study has. So what another machine published stays until this one measures the
same; delete the files to publish all rows again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.comparison.combined_pools import JOINT, PublishedRow, combined_pool
from warehouse.comparison.precision_pools import WITH_INFORMED, PrecisionPool, pools_in
from warehouse.connect import quoted

OWN = "own"  # trained where it is judged, and not moved
VIEW = "precision_comparison"
SUMMARY = "precision_summary"
_ROWS = """
WITH measured AS ({measured}),
published AS ({published})
FROM measured
UNION ALL BY NAME
FROM published ANTI JOIN measured
    USING (base_model, recipe, seed, adapter, evaluation_set, set_digest, precision)
ORDER BY
    base_model, recipe, seed, adapter, evaluation_set, set_digest, stored_bytes DESC, precision
"""
_KEY = (
    "base_model",
    "recipe",
    "adapter",
    "evaluation_set",
    "set_digest",
    "random_weights",
    "precision",
    "reference",
)


def publish_precisions(con: duckdb.DuckDBPyConnection, study: str, folder: Path) -> None:
    """Write every precision against its reference into `folder`, and the mean over adapters.

    Where the study has no such pair here, the files stay as they are.
    """
    _publish_pairs(con, study, folder)

    rows = con.execute("SELECT unnest(evaluations_of($study))", {"study": study}).fetchall()
    if pools := pools_in(con, [id for (id,) in rows]):
        adapters = pq.read_table(folder / f"{VIEW}.parquet").to_pylist()
        _publish_pools(pools, adapters, folder / f"{SUMMARY}.parquet")


def _publish_pairs(con: duckdb.DuckDBPyConnection, study: str, folder: Path) -> None:
    """Each adapter at each precision, beside what is published."""
    path = folder / f"{VIEW}.parquet"
    published = (
        f"FROM read_parquet({quoted(str(path))})" if path.is_file() else "FROM measured LIMIT 0"
    )
    measured = WITH_INFORMED.format(ids="evaluations_of($study)")
    statement = _ROWS.format(measured=measured, published=published)
    rows = con.sql(statement, params={"study": study}).to_arrow_table()
    if len(rows):
        pq.write_table(rows, path, compression="zstd")


def _publish_pools(
    pools: Sequence[PrecisionPool], adapters: Sequence[PublishedRow], path: Path
) -> None:
    """The means over adapters: that of the most adapters of what is published, of this machine, and
    of all published rows together. A further seed alone would take the place of another.

    Of as many adapters a mean with a band of its own (`JOINT`) comes before one of published rows,
    and what is measured before what is published, whose adapters it measures again.
    """
    stored = pq.read_table(path).to_pylist() if path.is_file() else []
    # An earlier version averaged over recipes.
    published = {_key(row): row for row in stored if "recipe" in row}
    measured = {_key(row): row for row in map(_row, pools)}
    moved = [row for row in adapters if row["adapter"] != OWN]

    rows = []
    # As text, since random_weights may be NULL, and None cannot be compared.
    for key in sorted(published.keys() | measured.keys(), key=str):
        combined = combined_pool([row for row in moved if _key(row) == key])
        candidates = [
            measured.get(key),
            combined and dict(zip(_KEY, key, strict=True)) | combined,
            published.get(key),
        ]
        rows.append(max(filter(None, candidates), key=_rank))

    # A table takes its columns from the first row.
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(
        pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]),
        path,
        compression="zstd",
    )


def _rank(row: PublishedRow) -> tuple[int, bool]:
    return row["adapters"], row["bands"] == JOINT


def _key(row: PublishedRow) -> tuple[Any, ...]:
    return tuple(row[name] for name in _KEY)


def _row(pool: PrecisionPool) -> PublishedRow:
    """A pool in one row: the figures of each metric stand in columns of its name."""
    row: PublishedRow = {name: getattr(pool, name) for name in _KEY}
    row |= {
        "bytes_ratio": pool.bytes_ratio,
        "note": pool.note,
        "adapters": pool.figures["accuracy"].pairs,
        "bands": JOINT,
    }
    for metric, figure in pool.figures.items():
        lowest, highest = pool.ranges[metric] or (None, None)
        row |= {
            metric: figure.value_4bit,
            f"reference_{metric}": figure.value_8bit,
            f"{metric}_diff": figure.difference,
            f"{metric}_low": figure.low,
            f"{metric}_high": figure.high,
            f"{metric}_seed_sd": figure.seed_sd,
            f"{metric}_seed_low": figure.seed_low,
            f"{metric}_seed_high": figure.seed_high,
            f"{metric}_lowest": lowest,
            f"{metric}_highest": highest,
            f"{metric}_verdict": figure.verdict,
        }

    return row
