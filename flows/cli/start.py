"""The entry point of `triage`: Ctrl-C ends it in a sentence also while its modules are imported."""

from __future__ import annotations

import os
import signal

from deployments.interruptions import INTERRUPTED


def main() -> None:
    """Import the commands, which takes tenths of a second, and run the one that was typed."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # Not an exception, which a library that is being imported may turn into another one.
        signal.signal(signal.SIGINT, _leave)

    from flows.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    run()


def _leave(number: int, frame: object) -> None:
    os.write(2, b"triage: Interrupted.\n")
    os._exit(INTERRUPTED)
