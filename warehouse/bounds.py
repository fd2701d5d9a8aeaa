"""What a query may take and reach: memory, seconds, and nothing but the warehouse."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import SEALED, Settings

IN_MEMORY: Settings = {"temp_directory": ""}  # what does not fit is refused, not put on the disk
LEAST_MEMORY = 50_000_000


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


@contextlib.contextmanager
def stopped_after(
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
