"""A warehouse of this version: made where there is none, and built again from the landing folders
where its tables are those of another version.

The landing folders are the truth. What a file holds and no folder does is written as a landing
folder first, and the file is then kept under another name.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from tasks.runtime.errors import BadInput, Locked, TriageError
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from warehouse.comparison import pools
from warehouse.connect import (
    WAIT_SECONDS,
    reading,
    transaction,
    unused,
    utc_now,
    warehouse_path,
    writing,
)
from warehouse.fill import LoadReport, fill_part, landed_at
from warehouse.landing import LandingManifest, landing_folders, write_tables
from warehouse.schema import (
    FACTS,
    TABLES,
    VIEWS,
    FactTable,
    create_statements,
    digests,
    own_tables,
    record,
    recorded_digests,
    replace_views,
    tables,
)

LOCK_SECONDS = 5.0


@dataclass
class RebuildReport(LoadReport):
    """What was loaded; `written`: ids that had no landing folder and were written as one first.

    `kept`: where the old file is now, None where the new one has all that it held; `rows` of it
    had no landing folder, None where it is damaged.
    """

    written: list[str] = field(default_factory=list)
    kept: Path | None = None
    rows: int | None = 0

    def sentences(self) -> list[str]:
        """What became of the old file, and what the new one leaves out."""
        sentences = []
        if self.written:
            sentences.append(
                "Results without a landing folder of this version were written as one first: "
                f"{len(self.written)}."
            )
        if self.kept is not None and self.rows is None:
            sentences.append(f"The old file is damaged and kept: {self.kept}")
        elif self.kept is not None:
            sentences.append(
                f"The old file is kept, since no landing folder of this version had {self.rows} of "
                f"its rows: {self.kept}"
            )
        for kind, count in sorted(self.skipped.items()):
            sentences.append(f"Skipped, since this version does not know the kind {kind}: {count}.")
        return sentences


@contextlib.contextmanager
def current(
    database: Path | None = None, wait: float = WAIT_SECONDS, root: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-write connection, as `writing`, to a file with the tables and views of this version.

    A file with other tables is built again from the landing folders below `root`, or those of the
    home, and says so on the standard error. Raises BadInput where a newer version made the file.
    """
    path = database or warehouse_path()
    with contextlib.ExitStack() as opened:
        con = opened.enter_context(writing(path, wait))
        while _has_other_tables(con):
            opened.close()
            with _one_rebuild(path, wait):
                with reading(path, wait) as old:
                    is_other = _has_other_tables(old)
                if is_other:  # else another process has built it again meanwhile
                    _say(f"Another version made the tables of {path}: it is built again.")
                    report = _rebuild(root or home() / "landing", path)
                    _say(f"Built again from landing folders: {len(report.loaded)}.")
                    _say(*report.sentences())
                    _say(*(f"Not in it: {id}. {why}" for id, why in report.refused.items()))
            con = opened.enter_context(writing(path, wait))

        prepare(con)
        yield con


def _say(*sentences: str) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr)


def _has_other_tables(con: duckdb.DuckDBPyConnection) -> bool:
    recorded = recorded_digests(con)
    return bool(recorded) and recorded.get(TABLES) != digests()[TABLES]


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of a new file, and replace views that differ, with what depends on them."""
    recorded = recorded_digests(con)
    if not recorded:
        with transaction(con):
            con.execute(create_statements())
            record(con, TABLES, "schema")
    if recorded.get(VIEWS) == digests()[VIEWS]:
        return

    with transaction(con):
        replace_views(con)
        if recorded:
            from warehouse.comparison import pairs  # SciPy: a new file does without

            con.execute("DELETE FROM decision_count")
            con.execute("INSERT INTO decision_count FROM recounted_decisions_of(NULL)")
            pairs.refresh(con)
    if recorded:
        pools.refresh(con)


def rebuild(root: Path, database: Path | None = None) -> RebuildReport:
    """Fill a new warehouse from the landing folders under `root`.

    The old file stays until the new one is complete; what landed meanwhile is loaded then. Raises
    Locked while another process uses the file, or rebuilds it; BadInput where there is nothing to
    fill it from.
    """
    path = database or warehouse_path()
    with _one_rebuild(path, 0.0):
        return _rebuild(root, path)


@contextlib.contextmanager
def _one_rebuild(path: Path, wait: float) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path.with_name(f"{path.name}.rebuild"), wait))
        except Locked as error:
            raise Locked(
                f"Another process builds {path} again; wait until it has finished."
            ) from error
        yield


def _rebuild(root: Path, path: Path) -> RebuildReport:
    report = RebuildReport()
    is_readable = False
    if path.exists():
        # What cannot be read stays where it is, and is then kept whole.
        with contextlib.suppress(BadInput), reading(path) as old:
            report.written = _write_folders(old, root)
            is_readable = True

    folders = sorted(landing_folders(root), key=landed_at)
    if not folders and not is_readable:
        raise BadInput(f"There are no landing files in {root}; run a sweep, e.g. triage sweep.")

    # Beside the old file, so that it can be renamed into its place.
    fresh = path.with_name(f".{path.name}.rebuild")
    for left_by_a_killed_one in (fresh, _write_ahead_log(fresh)):
        left_by_a_killed_one.unlink(missing_ok=True)

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Building the warehouse again", total=len(folders))
        _fill(fresh, folders, report, lambda: progress.advance(task))

    _swap(root, fresh, path, report)
    _fill(path, _landed_since(root, report), report)
    return report


def _fill(
    path: Path,
    folders: list[Path],
    report: LoadReport,
    after_each: Callable[[], object] = lambda: None,
) -> None:
    """Fill folders into a file, which is made where there is none."""
    while folders or not path.exists():
        with current(path) as con:
            fill_part(con, folders, report, after_each)


def _write_folders(old: duckdb.DuckDBPyConnection, root: Path) -> list[str]:
    """Write the results of a file that have no landing folder of this version as one; returns their
    ids. An earlier version's folder lacks columns, for which the file has values.
    """
    written = []
    columns = _columns(old)
    for id, kind in _landed(old).items():
        fact = FACTS[kind]
        if (root / id).exists() and not _lacks_columns(root / id, fact):
            continue

        rows = {}
        for name in fact.tables:
            # A column that left since is left out; one that came since is NULL.
            names = [f'"{c}"' for c in tables()[name].names if c in columns.get(name, ())]
            if names:
                select = f"SELECT {', '.join(names)} FROM {name} WHERE {fact.id_column} = ?"
                # One chunk, as when it landed: the file is then the same byte for byte.
                rows[name] = old.sql(select, params=[id]).to_arrow_table().combine_chunks()
        # What cannot be written, or is being landed by another process, stays in the old file.
        with contextlib.suppress(TriageError), locked(root / id, LOCK_SECONDS):
            write_tables(root, id, kind, rows)
            written.append(id)

    return written


def _lacks_columns(folder: Path, fact: FactTable) -> bool:
    """Whether tables of a landing folder lack columns. A damaged folder is left to be named."""
    if LandingManifest.read_if_complete(folder, deep=True) is None:
        return False
    files = {name: folder / f"{name}.parquet" for name in fact.tables}
    return any(
        set(tables()[name].names) - set(pq.ParquetFile(file).schema_arrow.names)
        for name, file in files.items()
        if file.is_file()
    )


def _columns(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The columns of a file's tables, by table."""
    return dict(
        con.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() "
            "WHERE NOT internal AND table_name IN (SELECT table_name FROM duckdb_tables()) "
            "GROUP BY table_name"
        ).fetchall()
    )


def _landed(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The kind of each result of a file that this version knows, by id."""
    if "landed" not in _columns(con):
        return {}
    rows = con.execute("SELECT id, kind FROM landed ORDER BY loaded_at, id").fetchall()
    return {id: kind for id, kind in rows if kind in FACTS}


def _swap(root: Path, fresh: Path, path: Path, report: RebuildReport) -> None:
    """Put the new file in the place of the old one, which is kept if it held anything more."""
    if not path.exists():
        fresh.replace(path)
        return
    try:
        # An open connection keeps writers out until the new file is there.
        with reading(path) as old:
            try:
                _fill(fresh, _landed_since(root, report), report)
            except BadInput as error:  # as where the disk is full: the old file is sound
                raise TriageError(str(error)) from error
            report.rows = _rows_without_folder(old, report)
            report.kept = _replace(path, fresh, "before" if report.rows else None)
    except BadInput:
        with unused(path):
            report.rows = None
            report.kept = _replace(path, fresh, "damaged")


def _rows_without_folder(old: duckdb.DuckDBPyConnection, report: RebuildReport) -> int:
    """How many rows of the old file no landing folder had, or had in a form that can be loaded."""
    ids = [*report.written, *(_landed(old).keys() - set(report.loaded))]
    id_columns = {name: fact.id_column for fact in FACTS.values() for name in fact.tables}
    rows = 0
    for name in _columns(old):
        if name in id_columns:
            condition = f"{id_columns[name]} IN (SELECT unnest(?::VARCHAR[]))"
        elif name in own_tables():  # the loader fills it
            continue
        else:  # of another version, or a user's own
            condition = "? IS NOT NULL"
        count = old.execute(f'SELECT count(*) FROM "{name}" WHERE {condition}', [ids]).fetchone()
        rows += count[0] if count else 0

    return rows


def _replace(path: Path, fresh: Path, reason: str | None) -> Path | None:
    """Rename the new file into the place of the old one, which is deleted, or kept for a reason.

    Its log goes with it: it must not be replayed into the new file.
    """
    log = _write_ahead_log(path)
    kept = None
    if reason is None:
        log.unlink(missing_ok=True)
    else:
        kept = path.with_name(f"{path.name}.{reason}-{utc_now():%Y%m%d-%H%M%S-%f}")
        path.rename(kept)
        if log.exists():
            log.rename(_write_ahead_log(kept))
    fresh.replace(path)
    return kept


def _write_ahead_log(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _landed_since(root: Path, report: LoadReport) -> list[Path]:
    """Landing folders whose content a load has neither loaded nor refused."""
    since = []
    for folder in landing_folders(root):
        manifest = LandingManifest.read_if_complete(folder)
        is_loaded = manifest is None or (folder.name, manifest.digest) in report.contents
        if not is_loaded and folder.name not in report.refused:
            since.append(folder)
    return since
