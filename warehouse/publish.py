"""A copy of the warehouse for others: the file, every table as Parquet, small ones as CSV, and what
every column means.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tasks.runtime.errors import BadInput, disk_error
from tasks.runtime.store import temporary_folder
from warehouse.connect import check_exists, quoted, unused, warehouse_path, writing
from warehouse.migrate import migrate
from warehouse.place import FILE
from warehouse.reference import Relation, reference, relations_of

MOST_ROWS_AS_CSV = 100_000
DICTIONARY = "data_dictionary.csv"
_READ_ME = """# Results of triage-sweep

| file | contents |
|---|---|
| `{file}` | the warehouse, a DuckDB file that may only be read: `duckdb -readonly {file}` |
| `parquet/` | every table, one file each |
| `csv/` | every table and view of at most {most:,} rows, one file each |
| `{dictionary}` | what every column means |

The views are in the DuckDB file: `FROM leaderboard`, `FROM quantization_comparison`, and
`FROM leaderboard_of(evaluations_of('demo'))` for one study.

{reference}"""


@dataclass(frozen=True)
class Published:
    """Where a copy is, and how many files of each kind it has."""

    folder: Path
    parquet: int
    csv: int


def publish(folder: Path, database: Path | None = None) -> Published:
    """Write a copy of the warehouse to a new folder, whole or not at all.

    Raises BadInput where the folder is there already or cannot be written, Locked while another
    process uses the warehouse.
    """
    if folder.exists():
        raise BadInput(f"{folder} is there already; name a new folder.")

    path = database or warehouse_path()
    check_exists(path)
    with writing(path) as con:
        migrate(con)
        con.execute("CHECKPOINT")  # so that the file alone is all of it

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as temporary:
            published = _fill(temporary, path)
            temporary.rename(folder)
    except OSError as error:
        raise disk_error(error, folder) from error

    return Published(folder, *published)


def _fill(folder: Path, path: Path) -> tuple[int, int]:
    """Fill a folder; returns the numbers of Parquet and CSV files."""
    copy = folder / FILE
    # Nothing but the copy: when it closes the file, the record lock of this process is gone.
    with unused(path):
        shutil.copyfile(path, copy)

    for name in ("parquet", "csv"):
        (folder / name).mkdir()

    with duckdb.connect(str(copy), read_only=True) as con:
        every = relations_of(con)
        tables = [relation for relation in every if not relation.is_view]
        for table in tables:
            copy_rows(con, table.name, folder / "parquet" / f"{table.name}.parquet", "PARQUET")
        small = [relation for relation in every if _rows(con, relation.name) <= MOST_ROWS_AS_CSV]
        for relation in small:
            copy_rows(con, relation.name, folder / "csv" / f"{relation.name}.csv", "CSV")

    copy.chmod(0o444)
    _write_dictionary(folder / DICTIONARY, every)
    text = _READ_ME.format(
        file=FILE, most=MOST_ROWS_AS_CSV, dictionary=DICTIONARY, reference=reference(every)
    )
    (folder / "README.md").write_text(text, encoding="utf-8")

    return len(tables), len(small)


def _rows(con: duckdb.DuckDBPyConnection, name: str) -> int:
    row = con.execute(f'SELECT count(*) FROM "{name}"').fetchone()
    assert row is not None
    return int(row[0])


def copy_rows(con: duckdb.DuckDBPyConnection, name: str, file: Path, form: str) -> None:
    """Write a table or view to a file; `form`: the format, and what else COPY takes."""
    con.execute(f'COPY (FROM "{name}") TO {quoted(str(file))} (FORMAT {form})')


def _write_dictionary(path: Path, every: list[Relation]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["table", "is_view", "column", "type", "meaning"])
        for relation in every:
            for column in relation.columns:
                row = [relation.name, relation.is_view, column.name, column.type, column.comment]
                writer.writerow(row)
