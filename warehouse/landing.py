"""Results as immutable folders of Parquet files, one file per fact table.

`landing/<id>/` appears complete, by atomic rename, or not at all. Writing the same rows
again changes nothing. The warehouse can be rebuilt from these folders.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.store import MANIFEST, Manifest, build_folder
from tasks.spec import digest_of
from warehouse.schema import FACTS, FactTable, Kind, check, refuse_equal_keys
from warehouse.schema import tables as tables_by_name

Row = Mapping[str, object]  # value by column; None: not available
Rows = Sequence[Row]


class LandingManifest(Manifest):
    """The manifest of a landing folder; `id` and `kind` are None in a folder of another sort."""

    id: str | None = None
    kind: str | None = None


def write_landing(root: Path, id: str, kind: Kind, tables: Mapping[str, Rows]) -> Path:
    """Land the rows of `id` under `root` and return the folder `root/<id>`.

    `tables` maps the tables of `kind` to rows; each row has exactly the table's columns, None
    meaning "not available". Numbers that are not finite land as NULL. A table left out lands empty;
    the first table of the kind has a row. Raises BadInput naming table, row and column where rows
    do not fit the schema.
    """
    fact = FACTS[kind]
    landing = {name: _arrow_table(id, name, fact, tables.get(name, [])) for name in fact.tables}
    check(landing)
    return write_tables(root, id, kind, landing)


def write_tables(root: Path, id: str, kind: Kind, tables: Mapping[str, pa.Table]) -> Path:
    """Land Arrow tables that were checked when their rows first landed, as `write_landing` does.

    Raises BadInput for an id that cannot name a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", id):
        raise BadInput(
            f"{id!r} cannot name a landing folder; "
            "use letters, digits, dots, dashes and underscores."
        )

    # In memory first: their digest decides whether anything is written at all.
    files = {}
    for name, table in tables.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        files[f"{name}.parquet"] = buffer.getvalue()
    digest = digest_of(
        {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    )
    final = root / id

    def write(folder: Path) -> dict[str, str]:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return {"id": id, "kind": kind}

    current = LandingManifest.read_if_complete(final, deep=True)
    if current is None or current.digest != digest:
        # Named by its content and built aside: a write that is killed leaves the old folder, and
        # the next completes it.
        staging = root / f".{id}.{digest[:12]}"
        build_folder(staging, write)
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)

    return final


def _arrow_table(id: str, name: str, fact: FactTable, rows: Rows) -> pa.Table:
    """Rows with the types of `schema.sql`."""
    schema = tables_by_name()[name]
    for number, row in enumerate(rows, start=1):
        if wrong := sorted(row.keys() ^ set(schema.names)):
            raise BadInput(
                f"Table {name}, row {number}: column {wrong[0]!r} is missing, or not of this table; "
                "give None where a value is not available."
            )
        if row[fact.id_column] != id:
            raise BadInput(
                f"Table {name}, row {number}: {fact.id_column} is {row[fact.id_column]!r}, but the "
                f"rows are landed under {id!r}."
            )

    columns = {}
    for field in schema:
        is_time = pa.types.is_timestamp(field.type)
        try:
            values = [_plain(row[field.name], is_time) for row in rows]
            columns[field.name] = pa.array(values, type=field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise BadInput(
                f"Table {name}: a value of {field.name} is not of type {field.type}: {error}."
            ) from error

    table = pa.table(columns, schema=schema)
    refuse_equal_keys(name, fact, table)
    return table


def _plain(value: object, is_timestamp: bool) -> object:
    """A value as Arrow takes it.

    NumPy scalars are unwrapped, times in UTC without zone, numbers that are not finite None.
    """
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None

    if is_timestamp and isinstance(value, str):
        with contextlib.suppress(ValueError):  # Arrow refuses what is no time
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)

    return value


def landing_folders(root: Path) -> list[Path]:
    """Folders with a manifest; one whose name starts with a dot is being written."""
    folders = (manifest.parent for manifest in root.glob(f"*/{MANIFEST}"))
    return sorted(folder for folder in folders if not folder.name.startswith("."))


def kind_of(folder: Path, manifest: LandingManifest) -> Kind | None:
    """The kind of a landing folder; None for one that left, or that a newer version landed.

    Raises BrokenFolder where it is no landing folder.
    """
    if manifest.id != folder.name or manifest.kind is None:
        raise BrokenFolder(
            f"{folder} is not a landing folder of this version (kind {manifest.kind!r}, "
            f"id {manifest.id!r})."
        )
    return manifest.kind if manifest.kind in FACTS else None


def is_loaded(con: duckdb.DuckDBPyConnection, id: str, digest: str) -> bool:
    """Whether exactly this content of a landing folder is loaded."""
    query = "SELECT 1 FROM landed WHERE id = ? AND manifest_digest = ?"
    return con.execute(query, [id, digest]).fetchone() is not None


def landed_status(folder: Path) -> str | None:
    """The status of the training in a landing folder; None where there is none that can be read."""
    try:
        rows = pq.ParquetFile(folder / "experiment.parquet").read(columns=["status"])
    except (OSError, ValueError):
        return None
    return str(rows["status"][0])
