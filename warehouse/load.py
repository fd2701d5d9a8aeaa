"""From landing folders into the warehouse: idempotent, one transaction per folder.

The order of loading does not matter: a pair is computed again whenever one of its sides is loaded,
and a pool of pairs whenever one of them is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput, BrokenFolder, TriageError
from tasks.runtime.store import MANIFEST, read_manifest
from warehouse import derived
from warehouse.comparison import refresh_pairs, refresh_pools
from warehouse.connect import WAIT_SECONDS, utc_now, warehouse_path, writing
from warehouse.landing import LandingManifest, is_loaded
from warehouse.migrate import migrate
from warehouse.schema import FACTS, FactTable, Kind, insert

# The precision that rows without one have: they are older than the column.
UNNAMED_PRECISION = {
    "variant": "coalesce(bits || 'bit', 'bf16')",
    "experiment": "bits || 'bit'",
    "fidelity": "bits || 'bit'",
    "trial": "bits || 'bit'",
}

Stamp = tuple[str, int, int, int]  # path, inode, bytes and time of writing of a file
PART_SECONDS = 2.0  # for which a long load holds the file
BETWEEN_SECONDS = 0.6  # longer than the pause of a process that waits for the file


class _Seen:
    """What this process has seen to be loaded in the warehouse file as it is now: a finished sweep,
    typed again, asks for each of its results, and opening the file takes longer than all else.
    """

    def __init__(self) -> None:
        self._stamp: Stamp | None = None
        self._contents: set[tuple[str, str]] = set()  # ids and digests of landing folders

    def contents_of(self, path: Path) -> set[tuple[str, str]]:
        """Nothing, where the file is another one or was written since."""
        stamp = _stamp(path)
        return self._contents if stamp is not None and stamp == self._stamp else set()

    def add(self, path: Path, contents: Collection[tuple[str, str]]) -> None:
        """Note what is loaded, once the connection is closed."""
        self._contents = {*self.contents_of(path), *contents}
        self._stamp = _stamp(path)


_seen = _Seen()


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass
class LoadReport:
    """Ids that `load_all` loaded, ids that were loaded before, and why folders were refused.

    `aside`: where `rebuild` moved the file that was there before. `contents`: ids and
    digests of what is loaded now.
    """

    loaded: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    aside: Path | None = None
    contents: set[tuple[str, str]] = field(default_factory=set)


def load_landing(folder: Path, database: Path | None = None, wait: float = WAIT_SECONDS) -> bool:
    """Load one landing folder; False if exactly this content is loaded already.

    Raises as `load_landings`.
    """
    return bool(load_landings([folder], database, wait))


def load_landings(
    folders: Sequence[Path], database: Path | None = None, wait: float = WAIT_SECONDS
) -> list[str]:
    """Load landing folders in their order, a transaction each, through one connection: opening and
    closing a large file takes longer than the rows of an experiment. Returns the ids of those whose
    content was not loaded already.

    Raises BrokenFolder if a folder does not match its manifest, and loads none of them then; Locked
    if the warehouse stays in use for `wait` seconds.
    """
    # Before the file is opened: nobody waits while files are hashed, and a folder that is damaged
    # keeps all of them from being loaded.
    manifests = [LandingManifest.read(folder, deep=True) for folder in folders]
    contents = {(f.name, manifest.digest) for f, manifest in zip(folders, manifests, strict=True)}
    path = database or warehouse_path()
    if contents <= _seen.contents_of(path):
        return []

    with writing(database, wait) as con:
        migrate(con)
        pairs = zip(folders, manifests, strict=True)
        new_ids = [folder.name for folder, manifest in pairs if _load(con, folder, manifest)]
        if new_ids:
            # Once, after the last of them: a pool is made from all of its pairs.
            refresh_pools.refresh_after(con, new_ids)

    # Not within the block: closing the connection may still write, which changes the stamp.
    _seen.add(path, contents)
    return new_ids


def load_all(root: Path, database: Path | None = None, wait: float = WAIT_SECONDS) -> LoadReport:
    """Load every new landing folder under `root`; a broken one does not stop the others.

    Other processes have a turn at the file between two parts of the work. Raises Locked if the
    warehouse stays in use for `wait` seconds.
    """
    report = LoadReport()
    folders = sorted(landing_folders(root), key=_landed_at)
    load_folders(folders, report, database, wait)
    return report


def _landed_at(folder: Path) -> str:
    """When a folder landed, "" where it does not say: of two runs of a cell the later one is loaded
    later, in a rebuild too.
    """
    try:
        manifest = read_manifest(folder) or {}
    except (TriageError, OSError):  # its turn says what is wrong with it
        return ""
    return str(manifest.get("created") or "")


def load_folders(
    folders: list[Path], report: LoadReport, database: Path | None, wait: float
) -> None:
    """As `load_all`, these folders, which are taken off the list."""
    with writing(database, wait) as con:
        migrate(con)
        _load_part(con, folders, report)

    while folders:
        time.sleep(BETWEEN_SECONDS)
        # A load that has begun waits for the turn of others, however short `wait` is.
        with writing(database, max(wait, WAIT_SECONDS)) as con:
            _load_part(con, folders, report)

    _seen.add(database or warehouse_path(), report.contents)


def _load_part(con: duckdb.DuckDBPyConnection, folders: list[Path], report: LoadReport) -> None:
    """Load folders, and take them off the list, until the time of a part is over; the last part
    makes the figures of pools.
    """
    end = time.monotonic() + PART_SECONDS
    while folders and time.monotonic() < end:
        folder = folders.pop(0)
        try:
            manifest = LandingManifest.read(folder, deep=True)
            is_new = _load(con, folder, manifest)
        except (TriageError, OSError) as error:  # or another sweep is replacing it
            report.refused[folder.name] = str(error)
        else:
            (report.loaded if is_new else report.unchanged).append(folder.name)
            report.contents.add((folder.name, manifest.digest))

    if not folders and report.loaded:
        refresh_pools.refresh(con)


def landing_folders(root: Path) -> list[Path]:
    """Folders with a manifest; one whose name starts with a dot is being written."""
    folders = (manifest.parent for manifest in root.glob(f"*/{MANIFEST}"))
    return sorted(folder for folder in folders if not folder.name.startswith("."))


def _load(con: duckdb.DuckDBPyConnection, folder: Path, manifest: LandingManifest) -> bool:
    """Load a folder; False if its content is loaded already."""
    id = folder.name
    kind = kind_of(folder, manifest)
    if is_loaded(con, id, manifest.digest):
        return False

    with _transaction(con, folder):
        _replace_rows(con, folder, FACTS[kind], id)
        derived.work_out(con, kind, id, folder)
        con.execute("DELETE FROM landed WHERE id = ?", [id])
        entry = [id, kind, manifest.digest, utc_now()]
        con.execute("INSERT INTO landed VALUES (?, ?, ?, ?)", entry)
        # After work_out: pairs are matched by the costs and the data digest that it sets.
        if kind == "dataset":  # which names datasets again, those of any training
            refresh_pairs.refresh(con)
        elif kind in ("training", "evaluation"):
            refresh_pairs.refresh(con, id, folder.parent)

    return True


def kind_of(folder: Path, manifest: LandingManifest) -> Kind:
    """The kind of a landing folder. Raises BrokenFolder where it is none that this version knows."""
    if manifest.id != folder.name or manifest.kind is None:
        raise BrokenFolder(
            f"{folder} is not a landing folder of this version (kind {manifest.kind!r}, "
            f"id {manifest.id!r})."
        )

    kind = next((kind for kind in FACTS if kind == manifest.kind), None)
    if kind is None:
        raise BrokenFolder(
            f"{folder} holds a {manifest.kind!r}, which this version does not know; update triage."
        )

    return kind


@contextlib.contextmanager
def _transaction(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[None]:
    """All of the block or nothing; BadInput names the folder."""
    con.begin()
    try:
        yield
        con.commit()
    except BadInput as error:
        con.rollback()
        raise BadInput(f"{folder}: {error}") from error
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # a damaged file refuses even that
            con.rollback()
        raise


def _replace_rows(con: duckdb.DuckDBPyConnection, folder: Path, fact: FactTable, id: str) -> None:
    """Delete and insert: a row-wise merge would keep rows that the new content no longer has."""
    is_new = con.execute("SELECT 1 FROM landed WHERE id = ?", [id]).fetchone() is None
    for name in fact.tables:
        if not is_new:  # a deletion reads the whole table
            con.execute(f"DELETE FROM {name} WHERE {fact.id_column} = ?", [id])
        path = folder / f"{name}.parquet"
        if path.is_file():
            insert(con, name, pq.ParquetFile(path).read())

    _name_precisions(con, fact, id)


def _name_precisions(con: duckdb.DuckDBPyConnection, fact: FactTable, id: str) -> None:
    """Name the precision of rows that landed before it had a column: their bits say it."""
    for name in UNNAMED_PRECISION.keys() & set(fact.tables):
        con.execute(
            f"UPDATE {name} SET precision = {UNNAMED_PRECISION[name]} "
            f"WHERE {fact.id_column} = ? AND precision IS NULL",
            [id],
        )
