"""Kills a child process that has sent no sign of life for long, or that takes longer than it may:
one that hangs, or was stopped.

The step is retried, and a training goes on from its checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Literal, Protocol

SILENT_SECONDS = 600.0  # a child sends a heartbeat every two seconds
TICKS = 100  # in that time


class Killable(Protocol):
    """As much of a process as a watchdog needs."""

    def kill(self) -> None: ...


class Watchdog:
    """Watches a process while the context lasts: for silence of `limit` seconds, and for a whole
    time of `at_most` seconds, where there is such a limit.

    It counts its own ticks and not the time: after a sleep of the machine, or of this process, the
    child has as long as ever. While what the child sent is being handled, no silence is counted.
    """

    def __init__(
        self, process: Killable, limit: float = SILENT_SECONDS, at_most: float | None = None
    ) -> None:
        self.killed_for: Literal["silence", "time"] | None = None
        self._process = process
        self._limit = limit
        self._at_most = at_most
        self._tick = min(limit, at_most or limit) / TICKS
        self._silent = 0.0
        self._taken = 0.0
        self._is_listening = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def lines(self, stream: Iterable[str]) -> Iterator[str]:
        """The lines of what the process sends, each a sign of life."""
        for line in stream:
            self._is_listening = False
            yield line
            self._silent = 0.0
            self._is_listening = True

    def _watch(self) -> None:
        while self.killed_for is None and not self._ended.wait(self._tick):
            self._silent += self._tick if self._is_listening else 0.0
            self._taken += self._tick
            if self._silent >= self._limit:
                self._kill("silence")
            elif self._at_most is not None and self._taken >= self._at_most:
                self._kill("time")

    def _kill(self, reason: Literal["silence", "time"]) -> None:
        self.killed_for = reason
        self._process.kill()
