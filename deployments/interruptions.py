"""Signals that stop a command: SIGTERM and a closed terminal do what Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP unless it is ignored (nohup), raise KeyboardInterrupt while the block runs.

    So what was started is stopped. Afterwards the handlers are those of before.
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
    """Keep a second Ctrl-C from cutting short what the first one started, until `interrupted_by_signals` ends."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)
