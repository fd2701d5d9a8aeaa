"""What ends a command, and what must not: SIGTERM and a closed terminal do what Ctrl-C does, and a
Mac stays awake.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator

from tasks.runtime.backend import is_mac

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # the exit code of a command that Ctrl-C ends
LEAVE_SECONDS = 4.0  # that an interrupted command has to end in order


@contextlib.contextmanager
def interrupted_by_signals(note: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let SIGTERM, and SIGHUP unless nohup ignores it, raise KeyboardInterrupt in the block.

    So started processes are stopped. `note` is called before, in the signal's handler. Afterwards
    the earlier handlers are back.
    """

    def interrupt(number: int, frame: object) -> None:
        note()
        raise KeyboardInterrupt

    previous_handlers = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    for number in INTERRUPTIONS:
        if number == signal.SIGTERM or previous_handlers[number] != signal.SIG_IGN:
            signal.signal(number, interrupt)

    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def at_next_interruption(leave: Callable[[], None]) -> None:
    """Call `leave`, and do nothing else, at a second Ctrl-C while the first is handled, until
    `interrupted_by_signals` ends.
    """
    for number in INTERRUPTIONS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has SIGHUP
            signal.signal(number, lambda signum, frame: leave())


@contextlib.contextmanager
def leaving_in_time(
    wait_for_interruption: Callable[[], None], leave: Callable[[], None]
) -> Iterator[None]:
    """Once the block is interrupted, the process has LEAVE_SECONDS to end; then `leave` is called.

    Prefect's client may be waiting for a server that is gone, for minutes, also while the process
    exits. A block that ends without an interruption has no such limit.
    """
    end = threading.Event()

    def watch() -> None:
        wait_for_interruption()
        if not end.wait(LEAVE_SECONDS):
            leave()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    # Not BaseException: after an interruption the time to leave runs until the process has ended.
    except Exception:
        end.set()
        raise

    end.set()


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """Let a Mac not fall asleep by itself while the block runs. A closed lid overrides it."""
    program = shutil.which("caffeinate") if is_mac() else None
    if program is None:
        yield
        return

    # It leaves with this process, however that ends; Ctrl-C does not reach it.
    command = [program, "-i", "-w", str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
