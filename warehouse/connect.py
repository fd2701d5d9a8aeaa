"""Opening the warehouse file: short connections and bounded waiting for its lock.

Any open read-write connection shuts every other process out, readers too, so a connection is opened, used and closed,
never held during training. Within this process one connection at a time is open, since DuckDB refuses two
configurations of one file. Files are written in a format that every supported DuckDB version reads.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from os import environ
from pathlib import Path
from typing import Any

import duckdb

from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.store import home

FILE = "triage.duckdb"
STORAGE = {
    "storage_compatibility_version": "v1.5.0"
}  # without it, DuckDB 1.5 could not open a file made by 2.0
_one_at_a_time = threading.RLock()


def warehouse_path() -> Path:
    """`TRIAGE_WAREHOUSE`, else `warehouse/triage.duckdb` in a checkout of this project, else in TRIAGE_HOME."""
    if named := environ.get("TRIAGE_WAREHOUSE"):
        return Path(named).resolve()
    return Path("warehouse", FILE).resolve() if _in_checkout() else home() / FILE


def _in_checkout() -> bool:
    try:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == "triage-sweep")


@contextlib.contextmanager
def writing(path: Path | None = None, wait: float = 30.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """A short read-write connection; the file is made if need be.

    Waits at most `wait` seconds for other processes, then raises Locked naming the holder.
    """
    path = path or warehouse_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"{path.parent} cannot be made ({error.strerror}); choose a file by TRIAGE_WAREHOUSE."
        ) from error
    with _opened(path, wait, read_only=False, config=STORAGE) as con:
        yield con


@contextlib.contextmanager
def reading(
    path: Path | None = None, wait: float = 30.0, config: dict[str, Any] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A short read-only connection. Raises BadInput where there is no warehouse yet, Locked as `writing` does."""
    path = path or warehouse_path()
    if not path.is_file():
        raise BadInput(f"There is no warehouse yet at {path}; run `triage sweep demo` first.")
    with _opened(path, wait, read_only=True, config=config or {}) as con:
        yield con


@contextlib.contextmanager
def _opened(path: Path, wait: float, **options: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    if not _one_at_a_time.acquire(timeout=wait):
        raise Locked(
            f"Another thread of this process has used {path} for {wait:g} s; try again when it has finished."
        )
    try:
        con = _connect(path, wait, **options)
        try:
            yield con
        finally:
            con.close()
    finally:
        _one_at_a_time.release()


def _connect(path: Path, wait: float, **options: Any) -> duckdb.DuckDBPyConnection:
    deadline, pause = time.monotonic() + wait, 0.02
    while True:
        try:
            return duckdb.connect(str(path), **options)
        except duckdb.IOException as error:
            if not is_lock(error):
                raise BadInput(
                    f"{path} cannot be opened as a warehouse: {first_line(error)}."
                ) from error
            if time.monotonic() >= deadline:
                raise Locked(_held(path, str(error))) from error
        except duckdb.ConnectionException as error:
            raise BadInput(
                f"This process has {path} open by a connection of its own; close that one first."
            ) from error
        except duckdb.Error as error:
            raise BadInput(
                f"{path} cannot be opened as a warehouse: {first_line(error)}."
            ) from error
        time.sleep(random.uniform(0, pause))  # jitter: equal waits would collide again
        pause = min(2 * pause, 0.5)


def is_lock(error: Exception) -> bool:
    """Whether an error means that another process has the file: the only one worth a second attempt."""
    return isinstance(error, duckdb.IOException) and "lock on file" in str(error)


def _held(path: Path, message: str) -> str:
    found = re.search(r"held in (.+?) \(PID (\d+)\)", message)
    holder = f"{Path(found[1]).name} (process {found[2]})" if found else "another process"
    return f"{path} is in use by {holder}; close it there and run the command again."


def first_line(error: Exception) -> str:
    """The first line of a DuckDB message, without the kind of error and the final stop."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"^[\w ]+ Error: ", "", line).rstrip(".!")


def utc_now() -> datetime:
    """The time in UTC without a zone, as every TIMESTAMP of the warehouse is."""
    return datetime.now(UTC).replace(tzinfo=None)
