"""Results as immutable folders of Parquet files, one file per fact table.

`landing/<id>/` appears complete, by atomic rename, or not at all. Writing the same rows
again changes nothing. The warehouse can be rebuilt from these folders.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput
from tasks.runtime.store import Manifest, build_folder
from tasks.spec import digest_of
from warehouse.schema import FACTS, FactTable, Kind, Table, check
from warehouse.schema import tables as tables_by_name

Row = Mapping[str, object]  # value by column; None: not available
Rows = Sequence[Row]

NOT_OF_TYPE = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


class LandingManifest(Manifest):
    """The manifest of a landing folder; `id` and `kind` are None in a folder of another sort."""

    id: str | None = None
    kind: str | None = None


def write_landing(root: Path, id: str, kind: Kind, tables: Mapping[str, Rows]) -> Path:
    """Land the rows of `id` under `root` and return the folder `root/<id>`.

    `tables` maps the tables of `kind` to rows; each row has exactly the table's columns, None
    meaning "not available". Numbers that are not finite land as NULL. A table left out lands empty;
    the first table of the kind needs a row. Raises BadInput naming table, row and column where rows
    do not fit the schema.
    """
    check_id(id)
    arrow_tables = _arrow_tables(id, kind, tables)
    check(arrow_tables)
    return write_tables(root, id, kind, arrow_tables)


def write_tables(root: Path, id: str, kind: Kind, tables: Mapping[str, pa.Table]) -> Path:
    """Land Arrow tables that were checked when their rows first landed, as `write_landing` does.

    Raises BadInput for an id that cannot name a folder.
    """
    check_id(id)
    # In memory first: their digest decides whether anything is written at all.
    files = {f"{name}.parquet": _parquet(table) for name, table in tables.items()}
    digest = digest_of(
        {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    )
    final = root / id

    current = LandingManifest.read_if_complete(final, deep=True)
    if current is None or current.digest != digest:
        # Named by its content and built aside: a write that is killed leaves the old folder, and
        # the next completes it.
        staging = root / f".{id}.{digest[:12]}"
        build_folder(staging, _writer(files, id, kind))
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)

    return final


def check_id(id: str) -> None:
    """Raise BadInput for an id that would name another folder than one below the landing folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", id):
        raise BadInput(
            f"{id!r} cannot name a landing folder; "
            "use letters, digits, dots, dashes and underscores."
        )


def _writer(files: dict[str, bytes], id: str, kind: Kind) -> Callable[[Path], dict[str, str]]:
    """A function that fills a folder with `files` and returns further entries of its manifest."""

    def write(folder: Path) -> dict[str, str]:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return {"id": id, "kind": kind}

    return write


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _arrow_tables(id: str, kind: Kind, tables: Mapping[str, Rows]) -> dict[str, pa.Table]:
    """The tables of a kind, in its order, checked against the schema but for CHECK constraints."""
    fact = _fact(kind)
    if unknown := sorted(set(tables) - set(fact.tables)):
        raise BadInput(
            f"Table {unknown[0]!r} does not belong to a landed {kind}; "
            f"allowed are {', '.join(fact.tables)}."
        )
    if not tables.get(fact.tables[0]):
        raise BadInput(f"Landing {kind} {id!r} needs a row in table {fact.tables[0]!r}.")

    arrow_tables = {}
    for name in fact.tables:
        table = tables_by_name()[name]
        rows = tables.get(name, [])
        _check_rows(table, rows, fact.id_column, id)
        columns = {column: _column(table, column, rows) for column in table.columns}
        arrow_tables[name] = pa.table(columns, schema=table.arrow)

    return arrow_tables


def _fact(kind: Kind) -> FactTable:
    if kind not in FACTS:
        raise BadInput(f"There is no landing kind {kind!r}; the kinds are {', '.join(FACTS)}.")
    return FACTS[kind]


def _check_rows(table: Table, rows: Rows, id_column: str, id: str) -> None:
    """Raise BadInput for a row with wrong columns, another id, or the key of an earlier row."""
    keys = set()
    for number, row in enumerate(rows, start=1):
        location = f"Table {table.name}, row {number}"
        _check_columns(table, row, location)
        if row[id_column] != id:
            raise BadInput(
                f"{location}: {id_column} is {row[id_column]!r}, but the rows are landed under "
                f"{id!r}."
            )

        key = tuple(row[column] for column in table.key)
        if key in keys:
            columns = ", ".join(table.key)
            raise BadInput(f"{location}: a row with {columns} = {key} is already there.")

        keys.add(key)


def _check_columns(table: Table, row: Row, location: str) -> None:
    if unknown := sorted(set(row) - set(table.columns)):
        columns = ", ".join(table.columns)
        raise BadInput(f"{location}: unknown column {unknown[0]!r}; the columns are {columns}.")
    if missing := [column for column in table.columns if column not in row]:
        raise BadInput(
            f"{location}: column {missing[0]!r} is missing; give None where it is not available."
        )


def _column(table: Table, column: str, rows: Rows) -> pa.Array:
    """One column as an Arrow array of the schema's type.

    Raises BadInput with the row of a value that does not fit.
    """
    type_ = table.arrow.field(column).type
    values = [_plain(row[column], pa.types.is_timestamp(type_)) for row in rows]
    try:
        array = pa.array(values, type=type_)
    except NOT_OF_TYPE as error:
        number = next((number for number, value in _numbered(values) if not _fits(value, type_)), 0)
        value_text = repr(values[number - 1])[:60]
        raise BadInput(
            f"Table {table.name}, row {number}: {column} = {value_text} is not of type {type_}."
        ) from error

    if column in table.required and array.null_count:
        number = next(number for number, value in _numbered(values) if value is None)
        raise BadInput(f"Table {table.name}, row {number}: {column} is needed and has no value.")

    return array


def _numbered(values: list[object]) -> Iterator[tuple[int, object]]:
    return enumerate(values, start=1)


def _fits(value: object, type_: pa.DataType) -> bool:
    try:
        pa.array([value], type=type_)
    except NOT_OF_TYPE:
        return False
    return True


def _plain(value: object, is_timestamp: bool) -> object:
    """A value as Arrow takes it.

    NumPy scalars are unwrapped, times in UTC without zone, numbers that are not finite None.
    """
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None

    if is_timestamp and isinstance(value, str):
        value = _parsed_time(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)

    return value


def _parsed_time(text: str) -> datetime | str:
    """The time that a text gives in ISO 8601. Other text is returned, and Arrow refuses it."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def is_loaded(con: duckdb.DuckDBPyConnection, id: str, digest: str) -> bool:
    """Whether exactly this content of a landing folder is loaded."""
    query = "SELECT 1 FROM landed WHERE id = ? AND manifest_digest = ?"
    return con.execute(query, [id, digest]).fetchone() is not None


def is_completed(folder: Path) -> bool:
    """Whether a landing folder holds a training that finished; False for what is no training."""
    path = folder / "experiment.parquet"
    if not path.is_file():
        return False
    statuses: list[object] = pq.ParquetFile(path).read(columns=["status"])["status"].to_pylist()
    return statuses == ["completed"]
