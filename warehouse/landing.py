"""Results as immutable folders of Parquet files, one file per fact table, from which the warehouse can be rebuilt.

`landing/<id>/` appears complete, by atomic rename, or not at all. Writing the same rows again changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput
from tasks.runtime.store import build_folder, complete
from tasks.spec import digest_of
from warehouse.schema import FACTS, Kind, Table, check
from warehouse.schema import tables as known_tables

Rows = list[dict[str, Any]]


def write_landing(root: Path, id: str, kind: Kind, tables: dict[str, Rows]) -> Path:
    """Land the rows of `id` under `root` and return the folder `root/<id>`.

    `tables` maps the tables of `kind` to rows; each row has exactly the table's columns, None meaning "not available".
    Numbers that are not finite land as NULL. A table left out lands empty; the first table of the kind needs a row.
    Raises BadInput naming table, row and column where rows do not fit the schema.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", id):
        raise BadInput(
            f"{id!r} cannot name a landing folder; use letters, digits, dots, dashes and underscores."
        )
    arrow = _arrow_tables(id, kind, tables)
    check(arrow)
    files = {f"{name}.parquet": _parquet(table) for name, table in arrow.items()}
    digest = digest_of(
        {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    )
    final = root / id
    there = complete(final)
    if there is not None and there["digest"] == digest:
        return final
    # Named by its content and built aside: a write that was killed leaves the old folder, and is completed next time.
    staging = root / f".{id}.{digest[:12]}"
    build_folder(staging, lambda folder: _write(folder, files, {"id": id, "kind": kind}))
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)
    return final


def _write(folder: Path, files: dict[str, bytes], extra: dict[str, Any]) -> dict[str, Any]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return extra


def _parquet(table: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _arrow_tables(id: str, kind: Kind, tables: dict[str, Rows]) -> dict[str, Any]:
    if kind not in FACTS:
        raise BadInput(f"There is no landing kind {kind!r}; the kinds are {', '.join(FACTS)}.")
    fact = FACTS[kind]
    if unknown := sorted(set(tables) - set(fact.tables)):
        raise BadInput(
            f"Table {unknown[0]!r} does not belong to a landed {kind}; allowed are {', '.join(fact.tables)}."
        )
    if not tables.get(fact.tables[0]):
        raise BadInput(f"Landing {kind} {id!r} needs a row in table {fact.tables[0]!r}.")
    return {
        name: _arrow(known_tables()[name], tables.get(name, []), fact.id_column, id)
        for name in fact.tables
    }


def _arrow(table: Table, rows: Rows, id_column: str, id: str) -> Any:
    keys = set()
    for number, row in enumerate(rows, start=1):
        where = f"Table {table.name}, row {number}"
        _check_columns(table, row, where)
        if row[id_column] != id:
            raise BadInput(
                f"{where}: {id_column} is {row[id_column]!r}, but the rows are landed under {id!r}."
            )
        key = tuple(row[column] for column in table.key)
        if key in keys:
            raise BadInput(f"{where}: a row with {', '.join(table.key)} = {key} is already there.")
        keys.add(key)
    return pa.table({c: _column(table, c, rows) for c in table.columns}, schema=table.arrow)


def _check_columns(table: Table, row: dict[str, Any], where: str) -> None:
    if unknown := sorted(set(row) - set(table.columns)):
        raise BadInput(
            f"{where}: unknown column {unknown[0]!r}; the columns are {', '.join(table.columns)}."
        )
    if missing := [column for column in table.columns if column not in row]:
        raise BadInput(
            f"{where}: column {missing[0]!r} is missing; give None where it is not available."
        )


def _column(table: Table, column: str, rows: Rows) -> Any:
    """One column as an Arrow array of the schema's type; names the row of a value that does not fit."""
    kind = table.arrow.field(column).type
    values = [_plain(row[column], pa.types.is_timestamp(kind)) for row in rows]
    try:
        array = pa.array(values, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        number = next((i for i, value in enumerate(values, start=1) if not _fits(value, kind)), 0)
        shown = repr(values[number - 1])[:60]
        raise BadInput(
            f"Table {table.name}, row {number}: {column} = {shown} is not of type {kind}."
        ) from error
    if column in table.required and array.null_count:
        number = next(i for i, value in enumerate(values, start=1) if value is None)
        raise BadInput(f"Table {table.name}, row {number}: {column} is needed and has no value.")
    return array


def _fits(value: Any, kind: Any) -> bool:
    try:
        pa.array([value], type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return False
    return True


def _plain(value: Any, timestamp: bool) -> Any:
    """A value as Arrow takes it: numpy scalars unwrapped, times in UTC without zone, not-finite numbers as None."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if timestamp and isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
