"""Connections to the warehouse file: short ones, with bounded waiting for its lock; where the file may
be, and what a damaged one means: it can be made again.

An open read-write connection shuts every other process out, readers too. So a connection is opened,
used and closed, and never held during training. Within this process one connection at a time is
open, since DuckDB refuses two configurations of one file. Files are written in a format that every
supported DuckDB version reads. Looking at a place opens no file: closing it would give up the lock
of a connection of this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import re
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from os import environ
from pathlib import Path
from typing import IO

import duckdb

from tasks.runtime.errors import BadInput, Locked, disk_full, is_disk_full
from tasks.runtime.home import home, named_path

FILE = "triage.duckdb"
WAITING = ".waiting"  # beside landing folders: another program kept some out of the warehouse
REBUILD = "triage warehouse rebuild"
REMEDY = f"it can be rebuilt from the landing files: {REBUILD}"
WAIT_SECONDS = 30.0
# DuckDB connects to such a file as a table in memory: what is written would be gone.
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".gz", ".zst")
_DAMAGE = (
    "Corrupt database file",
    "not a valid DuckDB database file",
    "Could not read enough bytes",
    "replaying WAL",
    "Failed to deserialize",
    "has been invalidated",
)

Settings = dict[str, str | bool | int | float | list[str]]  # DuckDB's, by name
# Without it, DuckDB 1.5 could not open a file written by 2.0.
STORAGE: Settings = {"storage_compatibility_version": "v1.5.0"}
# A read-only connection protects the warehouse. These settings protect everything else: no file,
# extension, network or Python variable can be reached, and no statement can undo them.
LOCK = "lock_configuration"
SEALED: Settings = {"enable_external_access": "false", LOCK: "true"}


def warehouse_path() -> Path:
    """`TRIAGE_WAREHOUSE`, else `warehouse/triage.duckdb` in a checkout, else in TRIAGE_HOME."""
    if path := named_path("TRIAGE_WAREHOUSE"):
        return path
    with contextlib.suppress(OSError, ValueError):
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        if project.get("project", {}).get("name") == "triage-sweep":
            return Path("warehouse", FILE).resolve()
    return home() / FILE


def check_place(path: Path) -> None:
    """Raise BadInput if no warehouse can be at `path`: a folder, a device, a place without files.

    Where there is no file yet and `TRIAGE_WAREHOUSE` names the place, a temporary file is tried.
    """
    reason = "it names a file of another kind" if path.suffix.lower() in _TABLES else None
    try:
        if path.exists() and not path.is_file():
            reason = "it is no ordinary file"
        elif not path.exists() and environ.get("TRIAGE_WAREHOUSE"):
            # In the nearest parent that is there.
            folder = next(parent for parent in path.parents if parent.exists())
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{FILE}."):
                pass
    except OSError as error:
        reason = str(error.strerror)
    if reason is not None:
        raise _no_place(path, reason)


def _no_place(path: Path, reason: str) -> BadInput:
    return BadInput(
        f"{path} cannot be opened as a warehouse ({reason}); "
        f"set TRIAGE_WAREHOUSE to a file in a folder that may be written, e.g. {FILE}."
    )


def check_exists(path: Path) -> None:
    """Raise BadInput where there is no warehouse yet."""
    if not path.is_file():
        raise BadInput(f"There is no warehouse yet at {path}; run `triage sweep demo` first.")


def check_replaceable(path: Path) -> None:
    """Raise BadInput unless a new file may take the place of `path`: it is a warehouse, however
    damaged, by its name or by what it holds.
    """
    check_place(path)
    if not path.exists() or path.suffix == ".duckdb":
        return
    with path.open("rb") as file:
        # DuckDB's magic bytes stand behind a checksum of eight bytes.
        if file.read(12)[8:] != b"DUCK":
            raise _no_place(path, "it is a file of another kind")


def loading_waits(landing: Path) -> bool:
    """Whether a landing folder waits to be loaded, since another program held the warehouse."""
    return (landing / WAITING).exists()


def is_damage(error: Exception) -> bool:
    """Whether an error means that the file, not the statement, is at fault."""
    of_statement = duckdb.ProgrammingError | duckdb.DataError  # which may hold any words
    if not isinstance(error, duckdb.Error) or isinstance(error, of_statement):
        return False
    return any(words in str(error) for words in _DAMAGE)


# Reentrant: a thread with a snapshot of one file may read another file.
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def _exclusive(path: Path, wait: float) -> Iterator[None]:
    """Keep other threads of this process from connecting; raises Locked after `wait` seconds, and
    BadInput with the remedy where DuckDB meets a damaged file, or a full disk, in the block.
    """
    if not _one_at_a_time.acquire(timeout=wait):
        raise Locked(
            f"Another thread of this process has used {path} for {wait:g} s; "
            "try again when it has finished."
        )
    try:
        yield
    except duckdb.Error as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        if is_damage(error):
            raise BadInput(f"{path} is damaged; {REMEDY}.") from error
        raise
    finally:
        _one_at_a_time.release()


@contextlib.contextmanager
def writing(
    path: Path | None = None, wait: float = WAIT_SECONDS
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A short read-write connection; creates the file if it is missing.

    Waits at most `wait` seconds for other processes, then raises Locked with the name of the
    holder.
    """
    path = path or warehouse_path()
    check_place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(path, str(error.strerror)) from error
    with _exclusive(path, wait), contextlib.closing(_connect(path, wait, False, STORAGE)) as con:
        yield con


class _Snapshot(threading.local):
    """The connection that `snapshot` keeps open for this thread, and the file."""

    connection: duckdb.DuckDBPyConnection | None = None
    path: Path | None = None


_snapshot = _Snapshot()


@contextlib.contextmanager
def reading(
    path: Path | None = None, wait: float = WAIT_SECONDS, settings: Settings | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A short read-only connection; in a `snapshot` of this thread, one to that.

    Raises BadInput where there is no warehouse yet, Locked as `writing` does.
    """
    path = path or warehouse_path()
    if _snapshot.connection is not None and _snapshot.path == path:
        # DuckDB refuses two configurations of one file.
        assert settings in (None, SEALED), "a snapshot has settings of its own"
        # cursor() is a further connection to the open file; closing it leaves the snapshot open.
        with _exclusive(path, wait), _snapshot.connection.cursor() as con:
            yield con
        return

    check_place(path)
    check_exists(path)
    with (
        _exclusive(path, wait),
        contextlib.closing(_connect(path, wait, True, settings or {})) as con,
    ):
        yield con


@contextlib.contextmanager
def snapshot(path: Path | None = None) -> Iterator[None]:
    """All that this thread reads in the block comes from one sealed connection, so that its tables
    are of one moment.

    No process can write to the warehouse meanwhile: not for a block that waits for anything.
    Raises as `reading` does.
    """
    path = path or warehouse_path()
    if _snapshot.connection is not None and _snapshot.path == path:
        yield
        return

    outer = _snapshot.connection, _snapshot.path
    with reading(path, settings=SEALED) as con:
        _snapshot.connection, _snapshot.path = con, path
        try:
            yield
        finally:
            _snapshot.connection, _snapshot.path = outer


@contextlib.contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of the block or nothing."""
    con.begin()
    try:
        yield
        con.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # a damaged file refuses even that
            con.rollback()
        raise


@contextlib.contextmanager
def unused(path: Path, wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Keep every process from connecting to a file that need not be a sound warehouse.

    Waits as `writing` does, and takes the lock that DuckDB takes.
    """
    with _exclusive(path, wait), contextlib.ExitStack() as opened:
        if path.is_file():
            try:
                file = opened.enter_context(path.open("r+b"))
            except OSError as error:
                raise _no_place(path, str(error.strerror)) from error
            _lock(file, path, wait)
        yield


def _lock(file: IO[bytes], path: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            # A POSIX record lock, as DuckDB takes: on Linux one of flock() would not exclude it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise _in_use(path, "another process") from error
        time.sleep(0.1)


def _connect(
    path: Path, wait: float, read_only: bool, settings: Settings
) -> duckdb.DuckDBPyConnection:
    """Connect once no other process has the file open. Only its lock is worth another attempt."""
    deadline = time.monotonic() + wait
    config = {name: value for name, value in settings.items() if name != LOCK}
    pause = 0.02
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only, config=config)
            # Where DuckDB takes Python for a notebook, a query of seconds would draw on standard
            # output. No setting of a file, so it is made before the settings are locked.
            con.execute("SET enable_progress_bar = false")
            if LOCK in settings:
                con.execute(f"SET {LOCK} = true")
            return con
        except duckdb.Error as error:
            # A file that cannot be read is an IOException too: only the words tell the lock apart.
            if not isinstance(error, duckdb.IOException) or "lock on file" not in str(error):
                raise _cannot_open(path, error) from error
            if time.monotonic() >= deadline:
                match = re.search(r"held in (.+?) \(PID (\d+)\)", str(error))
                holder = f"{Path(match[1]).name} (process {match[2]})" if match else None
                raise _in_use(path, holder or "another process") from error
        time.sleep(random.uniform(0, pause))  # jitter: equal waits would collide again
        # The longest pause; BETWEEN_SECONDS of load.py has to be longer.
        pause = min(2 * pause, 0.5)


def _cannot_open(path: Path, error: duckdb.Error) -> BadInput:
    if isinstance(error, duckdb.ConnectionException):
        return BadInput(
            f"This process has {path} open in another connection; close that one first."
        )
    if is_damage(error) and path.suffix == ".duckdb":
        return BadInput(f"{path} is damaged and cannot be opened as a warehouse; {REMEDY}.")
    return _no_place(path, first_line(error))


def _in_use(path: Path, holder: str) -> Locked:
    return Locked(f"{path} is in use by {holder}; close it there and run the command again.")


def first_line(error: Exception) -> str:
    """The first line of a DuckDB message, without the kind of error and the final stop."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"^[\w ]+ Error: ", "", line).rstrip(".!")


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def listed(texts: Iterable[str]) -> str:
    """String literals for `IN`, in parentheses; without any, a list that nothing is in."""
    return f"({', '.join(map(quoted, texts)) or 'NULL'})"


def utc_now() -> datetime:
    """The time in UTC without a zone, as every TIMESTAMP of the warehouse is."""
    return datetime.now(UTC).replace(tzinfo=None)
