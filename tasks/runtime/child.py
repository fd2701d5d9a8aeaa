"""Inside a child process, one per MLX step: `python -m tasks.runtime.child spec.json`, or forked
(forking.py). Its parent's side is children.py.

The child writes its events as JSON lines on its standard output and ends with a `result` or `error`
event; its exit code names the type of the error. Its standard input is a pipe that the parent holds
open: if the parent dies, in any way, the pipe closes and the child exits. Through it a step that
answers requests gets them (inbox.py, conversation.py).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from tasks.runtime import forking, inbox
from tasks.runtime.device import load_blas, use_device
from tasks.runtime.errors import (
    LOST_PARENT,
    BadInput,
    OutOfMemory,
    TriageError,
    device_error,
    disk_full,
    is_disk_full,
)
from tasks.runtime.events import Emit, Event, Heartbeat, StepError, StepResult, to_json
from tasks.runtime.memory import resident_bytes

HEARTBEAT_SECONDS = 2.0


def main(spec_path: str, *modules: str) -> NoReturn:
    """Run the function that the spec names, and exit; never returns.

    With the fork server's option instead of a path, import `modules` and do so in one forked
    process per spec that the parent sends.
    """
    # Ctrl-C reaches parent and child; the parent decides whether the child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before anything imports mlx.
    load_blas()
    if spec_path == forking.OPTION:
        spec_path = forking.serve(modules)

    events = os.fdopen(os.dup(1), "w", buffering=1)
    # From here on, what libraries print goes to the log and not into the event stream.
    os.dup2(2, 1)
    # Heartbeats are sent by a thread of their own: two lines must not mix.
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            events.write(to_json(event) + "\n")

    # Not before the fork in `serve`, which takes no threads along.
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    threading.Thread(target=_send_heartbeats, args=(emit,), daemon=True).start()
    code = _call(Path(spec_path), emit)
    events.flush()
    # Skips the teardown of libraries, which has nothing left to do and can hang.
    os._exit(code)


def _call(spec_path: Path, emit: Emit) -> int:
    """Run the function of a spec and emit its result or error; returns the exit code."""
    spec = json.loads(spec_path.read_text())
    module, _, name = spec["function"].partition(":")
    try:
        step = getattr(importlib.import_module(module), name)
        if "mlx.core" in sys.modules:
            use_device()
        result = step(spec["args"], emit)
    # The boundary of the process: every error becomes an event.
    except Exception as error:
        failure, code = _failure(error, spec_path.parent)
        emit(failure)
        return code

    emit(StepResult(result))
    return 0


def _failure(error: Exception, folder: Path) -> tuple[StepError, int]:
    """The last event of a step that raised `error`, and its exit code: 1 for an error that is not
    typed.
    """
    typed = _typed(error, folder)
    if typed is not None:
        return StepError(type(typed).__name__, str(typed)), typed.exit_code
    name = type(error).__name__
    return StepError(name, f"{name}: {error}"), 1


def _typed(error: Exception, folder: Path) -> TriageError | None:
    """The typed error that `error` amounts to, or None.

    A traceback of an unexpected one goes to the log.
    """
    if isinstance(error, TriageError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("The step ran out of memory.")

    import traceback

    traceback.print_exception(error)
    if is_disk_full(error):
        return disk_full(folder)

    return device_error(str(error))


def _exit_with_parent() -> None:
    # os.read, not sys.stdin: at end of file it returns without taking a buffer's lock.
    while data := os.read(0, 65536):
        inbox.receive(data)
    os._exit(LOST_PARENT)


def _send_heartbeats(emit: Emit) -> None:
    while True:
        emit(Heartbeat(resident_bytes()))
        time.sleep(HEARTBEAT_SECONDS)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(str(BadInput("usage: python -m tasks.runtime.child spec.json")))
    main(*sys.argv[1:])
