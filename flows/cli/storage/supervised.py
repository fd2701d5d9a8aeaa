"""A query under supervision: it ends at its bounds and at Ctrl-C, whatever it is doing.

DuckDB counts the memory of its tables and heeds an interruption between two parts of its work. A
single function call, such as repeat('x', 4000000000), does neither. So the query runs in a thread,
and the main thread looks at the clock and at the memory of the process. It ends the process where
need be: the connection only reads, so nothing is lost.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from flows.cli.terminal import INTERRUPTED, errors, print_error
from tasks.runtime.memory import resident_bytes
from warehouse.bounds import Bounds

Result = TypeVar("Result")  # rows, in whatever form
LOOK_SECONDS = 0.02
GRACE_SECONDS = 1.0  # for DuckDB to stop by itself
OWN_BYTES = 256_000_000  # of DuckDB and Python beside the data


class _Running(threading.Thread, Generic[Result]):
    """A query in a thread of its own, with its rows or its error."""

    def __init__(self, run: Callable[[], Result]) -> None:
        super().__init__(daemon=True)
        self.run_query = run
        self.rows: Result | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.rows = self.run_query()
        # Whatever it is: result() raises it in the main thread.
        except BaseException as error:
            self.error = error

    def result(self) -> Result:
        if self.error is not None:
            raise self.error
        assert self.rows is not None
        return self.rows


def supervised(run: Callable[[], Result], bounds: Bounds) -> Result:
    """The rows of `run()`, a query with these bounds; past them the process ends with a sentence."""
    query = _Running(run)
    initial_bytes = resident_bytes()
    query.start()

    try:
        _watch(query, bounds, initial_bytes)
    except KeyboardInterrupt:
        _end("Interrupted. The query was stopped.", INTERRUPTED)

    return query.result()


def _watch(query: _Running[Result], bounds: Bounds, initial_bytes: int) -> None:
    most_bytes = initial_bytes + OWN_BYTES + (bounds.memory or sys.maxsize)
    deadline = math.inf
    while query.is_alive():
        query.join(LOOK_SECONDS)
        # The clock starts with the statement: waiting for the file has a limit of its own.
        if deadline == math.inf and bounds.begun.is_set():
            deadline = time.monotonic() + GRACE_SECONDS + (bounds.seconds or math.inf)
        if resident_bytes() > most_bytes:
            _end(bounds.memory_sentence())
        if time.monotonic() > deadline:
            _end(bounds.time_sentence())


def _end(sentence: str, code: int = 2) -> NoReturn:
    """End the process at once: the query's thread cannot be stopped."""
    print_error(sentence)
    # os._exit flushes nothing.
    errors.file.flush()
    sys.stdout.flush()
    os._exit(code)
