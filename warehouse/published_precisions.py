"""The rows of a published study whose adapters were judged at further precisions.

Their predictions are too many to be published: those of seventy evaluations take more than twice
the space that a study has. So a row that another machine published stays until this one measures
the same.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from warehouse.connect import quoted

VIEW = "precision_comparison"
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
    """Write every precision against its reference into `folder`, beside what is published there.

    There is no file where the study has no such pair.
    """
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
