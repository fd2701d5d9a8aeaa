"""What results refer to: ids of trainings, digests of weights, data sets and sets of cases.

Read from the warehouse and from the landing folders, since either may lack what the other has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput
from warehouse.connect import reading, warehouse_path

REFERRING = {
    "experiment": ("training_id", "source_training_id", "weights_digest", "dataset_digest"),
    "evaluation": ("training_id", "set_digest"),
    "fidelity": ("variant_digest", "reference_digest", "dataset_digest"),
    "trial": ("training_id",),
}


def referred_to(landing: Path, database: Path | None = None) -> frozenset[str]:
    """What any result refers to. Raises BadInput for a landing folder that cannot be read, and as
    `reading` does for the warehouse.
    """
    database = database or warehouse_path()
    in_warehouse = _in_warehouse(database) if database.exists() else iter(())
    return frozenset((*in_warehouse, *_in_landing(landing)))


def _in_warehouse(database: Path) -> Iterator[str]:
    with reading(database) as connection:
        statement = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        columns = set(connection.execute(statement).fetchall())
        for table, names in REFERRING.items():
            # A file that an older version made lacks some.
            for name in (name for name in names if (table, name) in columns):
                rows = connection.execute(f"SELECT DISTINCT {name} FROM {table}").fetchall()
                yield from (value for (value,) in rows if value)


def _in_landing(landing: Path) -> Iterator[str]:
    for table, names in REFERRING.items():
        for file in sorted(landing.glob(f"[!.]*/{table}.parquet")):
            try:
                rows = pq.read_table(file)
            except (OSError, pa.ArrowException) as error:
                raise BadInput(
                    f"{file} cannot be read ({type(error).__name__}), so it is not known what it "
                    "refers to; `triage warehouse check` says what to do."
                ) from error
            for name in set(names).intersection(rows.column_names):
                yield from (value for value in rows[name].to_pylist() if value)
