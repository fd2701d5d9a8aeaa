"""Signals that stop a command: SIGTERM and a closed terminal do what Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP unless nohup ignores it, raise KeyboardInterrupt in the block.

    So started processes are stopped. Afterwards the earlier handlers are back.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGTERM or before[number] != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interruptions() -> None:
    """Ignore a second Ctrl-C while the first is handled, until `interrupted_by_signals` ends."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)
