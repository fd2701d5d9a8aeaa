"""From landing folders into the warehouse: idempotent, one transaction per folder, rebuildable.

The order of loading does not matter: pairs are computed anew whenever one of their sides is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput, BrokenFolder, TriageError
from tasks.runtime.store import MANIFEST, verify
from warehouse import refresh_pairs
from warehouse.connect import utc_now, warehouse_path, writing
from warehouse.migrate import migrate
from warehouse.schema import FACTS, Fact, insert


@dataclass
class Loaded:
    """What `load_all` did: ids loaded, ids that were there already, and why folders were refused."""

    loaded: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def load_landing(folder: Path, database: Path | None = None) -> bool:
    """Load one landing folder; False if exactly this content is loaded already.

    Raises BrokenFolder if the folder does not match its manifest, Locked if the warehouse stays in use.
    """
    manifest = verify(folder)
    with writing(database) as con:
        migrate(con)
        return _load(con, folder, manifest)


def load_all(root: Path, database: Path | None = None) -> Loaded:
    """Load every landing folder under `root` that is not loaded yet; a broken one does not stop the others."""
    done = Loaded()
    with writing(database) as con:
        migrate(con)
        for folder in sorted(
            path.parent for path in root.glob(f"*/{MANIFEST}") if path.parent.name[0] != "."
        ):
            try:
                new = _load(con, folder, verify(folder))
            except TriageError as error:
                done.refused[folder.name] = str(error)
            else:
                (done.loaded if new else done.unchanged).append(folder.name)
    return done


def rebuild(root: Path, database: Path | None = None) -> Loaded:
    """Make the warehouse anew from the landing folders under `root`; the old file stays until the new one is complete."""
    path = database or warehouse_path()
    fresh = path.with_name(f".{path.name}.rebuild")
    _remove(fresh)
    done = load_all(root, fresh)
    _wal(path).unlink(
        missing_ok=True
    )  # a log of the old file must not be replayed into the new one
    fresh.replace(path)
    return done


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _wal(path).unlink(missing_ok=True)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _load(con: duckdb.DuckDBPyConnection, folder: Path, manifest: dict[str, Any]) -> bool:
    id, kind, digest = manifest.get("id"), manifest.get("kind"), manifest["digest"]
    if kind not in FACTS or id != folder.name:
        raise BrokenFolder(
            f"{folder} is not a landing folder of this version (kind {kind!r}, id {id!r})."
        )
    if con.execute(
        "SELECT 1 FROM landed WHERE id = ? AND manifest_digest = ?", [id, digest]
    ).fetchone():
        return False
    con.begin()
    try:
        _replace(con, folder, FACTS[kind], id)
        con.execute("DELETE FROM landed WHERE id = ?", [id])
        con.execute("INSERT INTO landed VALUES (?, ?, ?, ?)", [id, kind, digest, utc_now()])
        refresh_pairs.refresh(con, id)
        con.commit()
    except BadInput as error:
        con.rollback()
        raise BadInput(f"{folder}: {error}") from error
    except BaseException:
        con.rollback()
        raise
    return True


def _replace(con: duckdb.DuckDBPyConnection, folder: Path, fact: Fact, id: str) -> None:
    """Delete and insert, since a row-wise merge would keep rows that the new content no longer has."""
    for name in fact.tables:
        con.execute(f"DELETE FROM {name} WHERE {fact.id_column} = ?", [id])
        path = folder / f"{name}.parquet"
        if path.is_file():
            insert(con, name, pq.ParquetFile(path).read())
