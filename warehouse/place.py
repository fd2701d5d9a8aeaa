"""Where a warehouse file may be, and what a damaged one means: it can be made again.

Looking at a place opens no file: closing it would give up the lock of a connection of this
process.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from os import environ
from pathlib import Path

import duckdb

from tasks.runtime.errors import BadInput, disk_error, disk_full, is_disk_full
from tasks.runtime.home import home

FILE = "triage.duckdb"
WAITING = ".waiting"  # beside landing folders: another program kept some out of the warehouse
REBUILD = "triage warehouse rebuild"
REMEDY = f"it can be rebuilt from the landing files: {REBUILD}"
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


def check_place(path: Path) -> None:
    """Raise BadInput if no warehouse can be at `path`: a folder, a device, a place without files.

    Where there is no file yet and `TRIAGE_WAREHOUSE` names the place, a temporary file is tried.
    """
    if path.suffix.lower() in _TABLES:
        raise BadInput(unreadable(path))
    try:
        if path.is_file():
            return
        if path.is_dir():
            raise BadInput(f"{path} is a folder; {_set_to(path / FILE)}")
        if path.exists():
            raise BadInput(f"{path} is no ordinary file; {_set_to(None)}")
        if environ.get("TRIAGE_WAREHOUSE"):
            _try_to_create(path)
    except OSError as error:
        if path.is_relative_to(home()) and isinstance(
            problem := disk_error(error, home()), BadInput
        ):
            raise problem from error
        raise BadInput(
            f"The warehouse {path} cannot be created ({error.strerror}); {_set_to(None)}"
        ) from error


def loading_waits(landing: Path) -> bool:
    """Whether a landing folder waits to be loaded, since another program held the warehouse."""
    return (landing / WAITING).exists()


def _try_to_create(path: Path) -> None:
    """Raise OSError unless files can be created where `path` is, or in its nearest parent."""
    folder = next(parent for parent in path.parents if parent.exists())
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{FILE}."):
        pass


def check_replaceable(path: Path) -> None:
    """Raise BadInput unless a new file may take the place of `path`: it is a warehouse, however
    damaged, by its name or by what it holds.
    """
    check_place(path)
    if not path.exists() or path.suffix == ".duckdb":
        return
    with path.open("rb") as file:
        # DuckDB's magic bytes stand behind a checksum of eight bytes.
        is_database = file.read(12)[8:] == b"DUCK"
    if not is_database:
        raise BadInput(unreadable(path))


def _set_to(example: Path | None) -> str:
    end = f", e.g. {example}." if example else " in a folder that may be written."
    return f"set TRIAGE_WAREHOUSE to a file{end}"


@contextlib.contextmanager
def damage_as_sentence(path: Path) -> Iterator[None]:
    """Raise BadInput with the remedy where DuckDB meets a damaged file, or a full disk, in the
    block.
    """
    try:
        yield
    except duckdb.Error as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        if not is_damage(error):
            raise
        raise BadInput(f"{path} is damaged; {REMEDY}.") from error


def is_damage(error: Exception) -> bool:
    """Whether an error means that the file, not the statement, is at fault."""
    of_statement = duckdb.ProgrammingError | duckdb.DataError  # which may hold any words
    if not isinstance(error, duckdb.Error) or isinstance(error, of_statement):
        return False
    return any(words in str(error) for words in _DAMAGE)


def unreadable(path: Path) -> str:
    """The sentence for a file that DuckDB does not know as its own: damaged, or of another kind."""
    if path.suffix == ".duckdb":
        return f"{path} is damaged and cannot be opened as a warehouse; {REMEDY}."
    return (
        f"{path} names a file of another kind, which cannot be opened as a warehouse; "
        f"{_set_to(path.with_suffix('.duckdb'))}"
    )
