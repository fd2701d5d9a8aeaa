"""Inside a child process, one per MLX step: `python -m tasks.runtime.child spec.json`, or forked
(children.py, which is its parent's side).

The child writes its events as JSON lines on its standard output and ends with a `result` or `error`
event, which names the type of the error. Its standard input is a pipe that the parent holds
open: if the parent dies, in any way, the pipe closes and the child exits. Through it a step that
answers requests gets them (conversation.py).

Only a child process, or the server from which it is forked, imports this module: the import loads
the BLAS, before anything imports MLX.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from tasks.runtime import conversation
from tasks.runtime.device import load_blas, resident_bytes, use_device
from tasks.runtime.errors import (
    BY_NAME,
    CLOSE_PROGRAMS,
    LOST_PARENT,
    OutOfMemory,
    TriageError,
    device_error,
    disk_full,
    is_disk_full,
)
from tasks.runtime.events import Emit, Event, Heartbeat, StepError, StepResult, to_json

HEARTBEAT_SECONDS = 2.0
load_blas()


def _set_limit(kind: int, limits: tuple[int, int], call: Any = resource.setrlimit) -> None:
    """mlx-lm asks for 4,096 open files when it is imported, which fails where fewer are allowed."""
    hard = resource.getrlimit(kind)[1]
    call(kind, limits if hard == resource.RLIM_INFINITY else [min(one, hard) for one in limits])


resource.setrlimit = _set_limit


def main(spec: Path) -> NoReturn:
    """Run the function that the file `spec` names, and exit; never returns."""
    # Ctrl-C reaches parent and child; the parent decides whether the child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "w", buffering=1)
    # From here on, what libraries print goes to the log and not into the event stream.
    os.dup2(2, 1)
    # Heartbeats are sent by a thread of their own: two lines must not mix.
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            events.write(to_json(event) + "\n")

    threading.Thread(target=_listen_to_parent, daemon=True).start()
    threading.Thread(target=_send_heartbeats, args=(emit,), daemon=True).start()
    code = _call(spec, emit)
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
        typed: TriageError | None
        if isinstance(error, TriageError):
            typed = error
        elif isinstance(error, MemoryError):
            typed = OutOfMemory(f"The step ran out of memory. {CLOSE_PROGRAMS}")
        else:
            # An unexpected error: its traceback goes to the log.
            traceback.print_exception(error)
            typed = disk_full(spec_path.parent) if is_disk_full(error) else device_error(str(error))
        if typed is None:
            emit(StepError(f"{type(error).__name__}: {error}"))
        else:
            # A subclass of another module comes back as the kind of error that it is.
            kinds = (kind.__name__ for kind in type(typed).__mro__)
            emit(StepError(str(typed), next(kind for kind in kinds if kind in BY_NAME)))
        return 1

    emit(StepResult(result))
    return 0


def _listen_to_parent() -> None:
    with open(0, "rb", closefd=False) as stream:
        for line in stream:
            conversation.lines.put(line)
    os._exit(LOST_PARENT)


def _send_heartbeats(emit: Emit) -> None:
    while True:
        emit(Heartbeat(resident_bytes()))
        time.sleep(HEARTBEAT_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
