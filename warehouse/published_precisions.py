"""The rows of a published study whose adapters were judged at further precisions.

Their predictions are too many to be published: those of seventy evaluations take more than twice
the space that a study has. So what another machine published stays until this one measures the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.connect import quoted
from warehouse.precision_pools import PrecisionFigure, figures_in

VIEW = "precision_comparison"
SUMMARY = "precision_summary"
_ROWS = """
WITH measured AS (FROM precision_comparison_of(evaluations_of($study))),
published AS ({published})
FROM measured
UNION ALL BY NAME
FROM published ANTI JOIN measured
    USING (base_model, recipe, seed, adapter, evaluation_set, set_digest, precision)
ORDER BY base_model, recipe, seed, adapter, evaluation_set, set_digest, stored_bytes DESC
"""


def publish_precisions(con: duckdb.DuckDBPyConnection, study: str, folder: Path) -> None:
    """Write every precision against its reference into `folder`, and the mean over adapters.

    There is no file where the study has no such pair.
    """
    _publish_pairs(con, study, folder)

    rows = con.execute("SELECT unnest(evaluations_of($study))", {"study": study}).fetchall()
    if figures := figures_in(con, [id for (id,) in rows]):
        pq.write_table(_by_precision(figures), folder / f"{SUMMARY}.parquet", compression="zstd")


def _publish_pairs(con: duckdb.DuckDBPyConnection, study: str, folder: Path) -> None:
    """Each adapter at each precision, beside what is published."""
    path = folder / f"{VIEW}.parquet"
    published = (
        f"FROM read_parquet({quoted(str(path))})" if path.is_file() else "FROM measured LIMIT 0"
    )
    rows = con.sql(_ROWS.format(published=published), params={"study": study})
    if not rows.limit(1).fetchall():
        return

    # Aside: the published rows are read while these are written.
    staging = folder / f".{VIEW}.new"
    rows.write_parquet(str(staging), compression="zstd")
    staging.replace(path)


def _by_precision(figures: Sequence[PrecisionFigure]) -> pa.Table:
    """A row per precision, with the figures of each metric in columns of its name.

    The metric follows the primary rule; accuracy and the AUROC follow the most probable label.
    """
    rows: dict[tuple[str, ...], dict[str, object]] = {}
    for row in figures:
        if row.rule != ("argmax" if row.metric in ("accuracy", "ed_auroc") else "primary"):
            continue
        key = (row.base_model, row.evaluation_set, row.set_digest, row.precision, row.reference)
        names = ("base_model", "evaluation_set", "set_digest", "precision", "reference")
        of_precision = rows.setdefault(key, dict(zip(names, key, strict=True)))
        of_precision |= {
            "bytes_ratio": row.bytes_ratio,
            "adapters": row.adapters,
            row.metric: row.value,
            f"reference_{row.metric}": row.reference_value,
            f"{row.metric}_diff": row.difference,
            f"{row.metric}_low": row.low,
            f"{row.metric}_high": row.high,
            f"{row.metric}_seed_sd": row.seed_sd,
            f"{row.metric}_verdict": row.verdict,
        }

    return pa.Table.from_pylist(list(rows.values()))
