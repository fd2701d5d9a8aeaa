"""What results refer to: ids of trainings, digests of weights, data sets and sets of cases.

Read from the warehouse and from the landing folders, since either may lack what the other has.
"""

from __future__ import annotations

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


def referred_to(landing: Path) -> frozenset[str]:
    """What any result refers to. Raises BadInput for a landing folder that cannot be read, and as
    `reading` does for the warehouse.
    """
    referred: set[str | None] = set()
    if warehouse_path().exists():
        with reading() as con:
            statement = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
            # A file that an older version made lacks some.
            present = set(con.execute(statement).fetchall())
            for table, names in REFERRING.items():
                for name in names:
                    if (table, name) in present:
                        rows = con.execute(f"SELECT DISTINCT {name} FROM {table}").fetchall()
                        referred.update(value for (value,) in rows)

    for table, names in REFERRING.items():
        for file in sorted(landing.glob(f"[!.]*/{table}.parquet")):
            try:
                landed = pq.read_table(file)
            except (OSError, pa.ArrowException) as error:
                raise BadInput(
                    f"{file} cannot be read ({type(error).__name__}), so it is not known what it "
                    "refers to; `triage warehouse check` says what to do."
                ) from error
            for name in set(names).intersection(landed.column_names):
                referred.update(landed[name].to_pylist())

    return frozenset(value for value in referred if value)
