"""User-supplied SQL: one read-only statement, without access to files or the network."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import Settings, reading
from warehouse.place import is_damage

if TYPE_CHECKING:
    import pandas as pd

# A read-only connection protects the warehouse. These settings protect everything else: no file,
# extension, network or Python variable can be reached, and no statement can undo them.
SEALED: Settings = {"enable_external_access": "false", "lock_configuration": "true"}
IN_MEMORY: Settings = {"temp_directory": ""}  # what does not fit is refused, not put on the disk
LEAST_MEMORY = 50_000_000
ROWS_AT_ONCE = 10_000
ALLOWED = "SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or PIVOT"


@dataclass(frozen=True)
class Rows:
    """The result of a query as Python values, with the name and DuckDB type of each column.

    `cut`: there are more rows than were asked for.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[object, ...]]
    cut: bool = False


@dataclass(frozen=True)
class Bounds:
    """Bytes of memory and seconds that DuckDB may take for a query; None leaves it its own.

    `begun` is set when the statement starts, after a wait for the file.
    """

    memory: int | None = None
    seconds: float | None = None
    begun: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def settings(self) -> Settings:
        if self.memory is None:
            return SEALED
        if self.memory < LEAST_MEMORY:
            raise BadInput(
                f"A query needs at least {LEAST_MEMORY // 10**6} MB of memory, not {self.memory} "
                "bytes; give it more with --memory."
            )
        return {**SEALED, **IN_MEMORY, "memory_limit": f"{self.memory}B"}

    def memory_sentence(self) -> str:
        """What to do where the memory does not suffice."""
        size = f"{self.memory or 0:,} bytes"
        return f"The query needs more than {size} of memory; allow more with --memory, e.g. 8GB."

    def time_sentence(self) -> str:
        """What to do where the time does not suffice."""
        return (
            f"The query was stopped after {self.seconds:g} seconds; allow more with --seconds, "
            "e.g. 600."
        )


def query(
    sql: str,
    database: Path | None = None,
    only: Collection[str] | None = None,
    bounds: Bounds | None = None,
) -> pd.DataFrame:
    """The result of one read-only statement, e.g. `query("FROM leaderboard")` in a notebook.

    `only` limits the views to the evaluations with these ids, however many later ones there are.
    Raises BadInput, in one sentence, for anything but one read-only statement, for an error of
    DuckDB, and where there is no warehouse yet. The warehouse is open only while the statement
    runs.
    """
    with _executed(sql, database, only, bounds or Bounds()) as result:
        return result.df()


def query_rows(
    sql: str,
    database: Path | None = None,
    only: Collection[str] | None = None,
    bounds: Bounds | None = None,
    most: int | None = None,
) -> Rows:
    """As `query`, without pandas, whose import takes longer than most queries; the first `most`
    rows.
    """
    with _executed(sql, database, only, bounds or Bounds()) as result:
        columns = result.description or []
        rows = _fetched(result, None if most is None else most + 1)
        return Rows(
            columns=tuple(name for name, *_ in columns),
            types=tuple(str(type_).strip('"') for _, type_, *_ in columns),
            rows=rows[:most],
            cut=most is not None and len(rows) > most,
        )


def _fetched(result: duckdb.DuckDBPyConnection, most: int | None) -> list[tuple[object, ...]]:
    """The rows, a part at a time: other threads look at the memory in between."""
    rows: list[tuple[object, ...]] = []
    while most is None or len(rows) < most:
        room = ROWS_AT_ONCE if most is None else min(ROWS_AT_ONCE, most - len(rows))
        part = result.fetchmany(room)
        if not part:
            break
        rows += part
    return rows


@contextlib.contextmanager
def _executed(
    sql: str, database: Path | None, only: Collection[str] | None, bounds: Bounds
) -> Iterator[duckdb.DuckDBPyConnection]:
    with (
        reading(database, settings=bounds.settings) as con,
        _stopped_after(con, bounds.seconds) as expired,
    ):
        bounds.begun.set()
        try:
            _refuse_unless_reading(con.extract_statements(sql), sql)
            if only is not None:
                ids = ", ".join("'" + id.replace("'", "''") + "'" for id in sorted(only))
                con.execute(f"SET VARIABLE only_evaluations = [{ids}]::VARCHAR[]")
            yield con.execute(sql)
        except duckdb.Error as error:
            if is_damage(error):
                raise
            if isinstance(error, duckdb.InterruptException) and expired.is_set():
                raise BadInput(bounds.time_sentence()) from error
            if isinstance(error, duckdb.OutOfMemoryException) and bounds.memory is not None:
                raise BadInput(bounds.memory_sentence()) from error
            raise BadInput(f"The query failed: {_sentence(error)}") from error


@contextlib.contextmanager
def _stopped_after(
    con: duckdb.DuckDBPyConnection, seconds: float | None
) -> Iterator[threading.Event]:
    """Interrupt what the connection does after so many seconds; the event says whether that was so."""
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        with contextlib.suppress(duckdb.Error):  # it has been closed in the meantime
            con.interrupt()

    if seconds is None:
        yield expired
        return
    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _refuse_unless_reading(statements: list[duckdb.Statement], sql: str) -> None:
    """Raise BadInput unless the statements are a single one that only reads."""
    kinds = [statement.type.name for statement in statements]
    if kinds == ["SELECT"] and not re.match(r"\s*pragma\b", sql, re.IGNORECASE):
        return

    # A pivot may run in two steps, which DuckDB 1.5 and 2.0 name differently.
    is_pivot = re.match(r"\s*pivot\b", sql, re.IGNORECASE)
    if is_pivot and kinds in (["MULTI"], ["CREATE", "SELECT"]):
        return

    if not kinds:
        raise BadInput(f"There is no SQL statement to run; give one {ALLOWED} statement.")
    refused = f"{len(kinds)} statements" if len(kinds) > 1 else f"this {kinds[0]} statement"
    raise BadInput(f"Queries only read: {refused} cannot be run; give one {ALLOWED} statement.")


def _sentence(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without the kind of error and the excerpt of the statement."""
    text = re.split(r"\n\s*LINE \d+:", str(error))[0]
    text = re.sub(r"^[\w ]+ Error: ", "", " ".join(text.split()))
    return text if text.endswith((".", "?")) else f"{text.rstrip('!')}."
