"""One operating-system process per MLX step: `python -m tasks.runtime.child spec.json`, or forked (fork_server.py).

The child writes progress events as JSON lines on its standard output and ends with a `result` or `error` event; its
exit code names the error's type. Its standard input is a pipe that the parent holds open: when the parent dies, however
it dies, the pipe closes and the child leaves. Both sides of the protocol are in this file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from tasks.runtime import fork_server
from tasks.runtime.device import load_blas, resident_bytes
from tasks.runtime.errors import (
    BY_EXIT_CODE,
    LOST_PARENT,
    BadInput,
    LostChild,
    OutOfMemory,
    Stopped,
    TriageError,
    disk_full,
    is_disk_full,
)  # fmt: skip
from tasks.runtime.events import (
    Emit,
    Event,
    Heartbeat,
    StepError,
    StepResult,
    from_json,
    to_json,
)
from tasks.runtime.store import process_chain, write_atomic

Outcome = StepResult | StepError
Process = subprocess.Popen[str] | fork_server.Forked
MODULE = "tasks.runtime.child"
HEARTBEAT_SECONDS = 2.0
MEMORY_SHARE_OF_OOM = 0.9
NEARLY_FULL_BYTES = 16 << 20
_running: set[Process] = set()
_stopping = threading.Event()


def run_child(
    function: str,
    args: dict[str, Any],
    folder: Path,
    on_event: Emit | None = None,
    memory_budget: int | None = None,
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Call `module:function` with `args` (a dict) in a child process and return its result (a dict).

    `folder` receives `spec.json` and `child.log` (what the libraries print); `environment` is added to this process's.
    Raises the typed error that the child reported, LostChild if a signal killed it, or OutOfMemory if it was killed
    with its memory at 90 % of the budget.
    """
    refuse_if_stopping()
    spec = folder / "spec.json"
    write_atomic(spec, json.dumps({"function": function, "args": args}, indent=1))
    process = _start(function, spec, folder / "child.log", environment)
    _running.add(process)
    try:
        refuse_if_stopping()  # since the question above
        outcome, resident = _follow(process, on_event or (lambda event: None))
        code = process.wait()
    finally:
        end_process(process)
        _close(process)
        _running.discard(process)
    if code == 0 and isinstance(outcome, StepResult):
        return outcome.result
    refuse_if_stopping()
    raise _error(code, outcome, resident, memory_budget, folder / "child.log")


def refuse_if_stopping() -> None:
    """Raise Stopped once the sweep has been interrupted."""
    if _stopping.is_set():
        raise Stopped("The sweep was stopped.")


def import_ahead(*modules: str) -> None:
    """Where steps are forked, let a process import the modules of steps to come while this one does other things."""
    fork_server.start(MODULE, _environment(), *modules)


def stop_children() -> None:
    """End every child of this process, and start no more; called when the sweep is interrupted."""
    _stopping.set()
    for process in list(_running):
        end_process(process)  # its own thread closes its streams, which it is reading from
    fork_server.end()


def _start(function: str, spec: Path, log: Path, environment: dict[str, str] | None) -> Process:
    wanted = _environment()
    if (
        environment is None
        and (forked := fork_server.fork(MODULE, function, spec, log, wanted)) is not None
    ):
        return forked
    with log.open("a") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(spec)], env=wanted | (environment or {}),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True,
        )  # fmt: skip


def _environment() -> dict[str, str]:
    # The child must find this very code, also when the parent was started in a checkout that is not installed.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    process_chain()
    return {
        **os.environ,
        "PYTHONPATH": path,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _follow(process: Process, on_event: Emit) -> tuple[Outcome | None, int]:
    """Hand on the events of a child until its output ends; returns the last one, and the bytes that it last held."""
    outcome: Outcome | None = None
    resident = 0
    assert process.stdout is not None

    for line in process.stdout:
        event = from_json(line)
        if isinstance(event, StepResult | StepError):
            outcome = event
        elif isinstance(event, Heartbeat):
            resident = event.resident_bytes
        elif event is not None:
            on_event(event)

    return outcome, resident


def end_process(process: subprocess.Popen[Any] | fork_server.Forked) -> None:
    """Ask a process of ours to end, and kill it if it has not within five seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _close(process: Process) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _error(
    code: int, outcome: Outcome | None, resident: int, budget: int | None, log: Path
) -> TriageError:
    message = outcome.message if isinstance(outcome, StepError) else None
    if code in BY_EXIT_CODE and message is not None:
        return BY_EXIT_CODE[code](message)
    if code == -signal.SIGKILL and budget and resident >= MEMORY_SHARE_OF_OOM * budget:
        return OutOfMemory(
            f"The step was killed while it held {resident / 1e9:.1f} GB of a budget of {budget / 1e9:.1f} GB."
        )
    if code == -signal.SIGBUS and shutil.disk_usage(log.parent).free < NEARLY_FULL_BYTES:
        return disk_full(log.parent)  # how a write into a mapped file ends on a full disk
    if code == LOST_PARENT:
        return LostChild(
            f"The step's process left, since the pipe from the sweep had closed; its log is {log}."
        )
    if code < 0:
        return LostChild(f"The step's process was ended by signal {-code}; its log is {log}.")
    return TriageError(f"The step failed: {message or f'exit code {code}'}. Its log is {log}.")


# --- inside the child ---------------------------------------------------------------------------------------------


def main(first: str, *modules: str) -> NoReturn:
    """Run the function that the spec at `first` names; never returns. With the fork server's option in its place, do so
    in a process of its own for each spec that the parent orders."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches both; the parent decides what it means
    load_blas()  # before anything imports mlx
    spec_path = fork_server.serve(modules) if first == fork_server.OPTION else first
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the event stream
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            events.write(to_json(event) + "\n")

    threading.Thread(target=_leave_with_parent, daemon=True).start()
    threading.Thread(target=_beat, args=(emit,), daemon=True).start()
    code = _call(json.loads(Path(spec_path).read_text()), Path(spec_path).parent, emit)
    events.flush()
    os._exit(code)  # skips library teardown, which has nothing left to do and can hang


def _call(spec: dict[str, Any], folder: Path, emit: Emit) -> int:
    module, _, name = spec["function"].partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(spec["args"], emit)
    except TriageError as error:
        emit(StepError(type(error).__name__, str(error)))
        return type(error).exit_code
    except MemoryError:
        emit(StepError("OutOfMemory", "The step ran out of memory."))
        return OutOfMemory.exit_code
    except Exception as error:  # the boundary of the process: everything becomes an event, the traceback goes to the log
        import traceback

        traceback.print_exc()
        if is_disk_full(error):
            emit(StepError("BadInput", str(disk_full(folder))))
            return BadInput.exit_code
        if "malloc" in str(error) or "out of memory" in str(error).lower():
            emit(StepError("OutOfMemory", f"The step ran out of memory: {error}"))
            return OutOfMemory.exit_code
        name = type(error).__name__
        emit(StepError(name, f"{name}: {error}"))
        return 1
    emit(StepResult(result))
    return 0


def _leave_with_parent() -> None:
    # os.read, not sys.stdin: it returns at end of file without a buffer's lock.
    while os.read(0, 4096):
        pass
    os._exit(LOST_PARENT)


def _beat(emit: Emit) -> None:
    while True:
        emit(Heartbeat(resident_bytes()))
        time.sleep(HEARTBEAT_SECONDS)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(str(BadInput(f"usage: python -m {MODULE} spec.json")))
    main(*sys.argv[1:])
