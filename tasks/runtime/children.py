"""Child processes, one per MLX step, as their parent sees them: it starts each, follows it to its
end, and ends those that still run when the sweep is interrupted.

What happens inside one is in child.py, which error its ending amounts to in child_ending.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from tasks.runtime import fork_server
from tasks.runtime.accelerator import reserved
from tasks.runtime.builds import refuse_unusable_build
from tasks.runtime.child_ending import Ending, error_of
from tasks.runtime.errors import Stopped
from tasks.runtime.events import Emit, Heartbeat, StepError, StepResult, from_json
from tasks.runtime.files import write_atomic
from tasks.runtime.store import process_chain
from tasks.runtime.watchdog import SILENT_SECONDS, Watchdog

Arguments = dict[str, Any]  # JSON: each job parses it into a class of its own
Process = subprocess.Popen[str] | fork_server.Forked
MODULE = "tasks.runtime.child"
TERMINATION_SECONDS = 5.0
_running: set[Process] = set()
_ended_seconds: list[float] = []  # of each child that has ended
_stopping = threading.Event()  # no further child starts
_interrupted = threading.Event()  # by a signal, or by the loss of the server


def run_child(
    function: str,
    args: Arguments,
    folder: Path,
    on_event: Emit | None = None,
    memory_budget: int | None = None,
    environment: dict[str, str] | None = None,
    on_start: Callable[[IO[str]], None] | None = None,
    at_most: float | None = None,
) -> dict[str, Any]:
    """Call `module:function` with `args` (JSON) in a child process and return its result (JSON).

    `folder` receives `spec.json`, a record, and `child.log` (everything that libraries print);
    `environment` is added to that of this process; `on_start` gets the step's standard input; after
    `at_most` seconds the child is killed.

    Raises the typed error that the child reported, LostChild if a signal killed it, or OutOfMemory
    if it was killed while it held 90 % of `memory_budget`; or BadInput, before anything starts,
    where MLX cannot be loaded as it is installed.
    """
    refuse_if_stopping()
    refuse_unusable_build()
    spec = json.dumps({"function": function, "args": args}, indent=1)
    log = folder / "child.log"
    write_atomic(folder / "spec.json", spec)

    # Steps append to one log: what it holds by now is not this child's.
    log_start = log.stat().st_size if log.exists() else 0
    # What answers requests runs for as long as its asker does.
    emit = on_event or (lambda event: None)

    exclusive = contextlib.nullcontext() if on_start else reserved(refuse_if_stopping, emit)
    with exclusive, _spec_of_its_own(folder, spec) as spec_path:
        process = _start(function, spec_path, log, environment)
        ending = _follow_to_end(process, emit, on_start, at_most)

    ending = replace(ending, log_start=log_start)
    if ending.code == 0 and isinstance(ending.outcome, StepResult):
        return ending.outcome.result

    # A child that was ended because the sweep stops is no error of its step.
    refuse_if_stopping()
    raise error_of(ending, memory_budget, log, at_most)


@contextlib.contextmanager
def _spec_of_its_own(folder: Path, spec: str) -> Iterator[Path]:
    """The file from which the child reads its spec: another process may start a step with this
    folder meanwhile, and then the record is that step's.
    """
    path = folder / f"spec-{secrets.token_hex(6)}.json"
    write_atomic(path, spec)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def step_seconds() -> float:
    """Seconds that the children of this process ran, of those that have ended."""
    return sum(_ended_seconds)


def refuse_if_stopping() -> None:
    """Raise Stopped once no further child is to start."""
    if _stopping.is_set():
        raise Stopped("The sweep was stopped.")


def import_ahead(*modules: str) -> None:
    """Start the fork server, if steps are forked here, and let it import `modules` in the
    background.
    """
    fork_server.start(MODULE, _environment(), *modules)


def start_no_more() -> None:
    """Start no further child, since the command is interrupted; called as soon as it is."""
    _interrupted.set()
    _stopping.set()


def is_interrupted() -> bool:
    """Whether the command has been interrupted."""
    return _interrupted.is_set()


def wait_until_interrupted() -> None:
    """Return once the command is interrupted."""
    _interrupted.wait()


def stop_children(interrupted: bool = True) -> None:
    """End every child of this process and start no more.

    `interrupted`: False where an error ends the command, which may then take the time it needs to
    say so.
    """
    if interrupted:
        start_no_more()
    _stopping.set()
    for process in list(_running):
        # The streams are closed by the thread that reads them.
        end_process(process)
    fork_server.end()


def kill_children() -> None:
    """Kill every child of this process and start no more, at once: no lock is taken, since a
    signal's handler may call this in the middle of anything.
    """
    start_no_more()
    for process in list(_running):
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)
    fork_server.kill()


def _start(function: str, spec_path: Path, log: Path, extra: dict[str, str] | None) -> Process:
    environment = _environment()
    # A forked step would have the server's value of a variable that is read on import.
    if extra is None:
        forked = fork_server.fork(MODULE, function, spec_path, log, environment)
        if forked is not None:
            return forked

    with log.open("a") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(spec_path)],
            env=environment | (extra or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )


def _environment() -> dict[str, str]:
    # The child must find this very code, also if the parent was started in a checkout that is not
    # installed.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # Sets TRIAGE_CHAIN where it is not set, before the variables are copied.
    process_chain()
    return {
        **os.environ,
        "PYTHONPATH": path,
        "TOKENIZERS_PARALLELISM": "false",
        # Read when MLX is imported: some GPUs would round float32 products to 10 bits otherwise.
        "MLX_ENABLE_TF32": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _follow_to_end(
    process: Process,
    on_event: Emit,
    on_start: Callable[[IO[str]], None] | None,
    at_most: float | None,
) -> Ending:
    """Hand on the events of a child until it ends.

    However this function is left, the child has ended by then.
    """
    _running.add(process)
    start = time.monotonic()

    try:
        # The sweep may have been interrupted while the process started.
        refuse_if_stopping()
        if on_start is not None and process.stdin is not None:
            on_start(process.stdin)
        with Watchdog(process, SILENT_SECONDS, at_most) as watchdog:
            outcome, resident = _follow(process, on_event, watchdog)
        return Ending(process.wait(), outcome, resident, killed_for=watchdog.killed_for)
    finally:
        end_process(process)
        _close(process)
        _running.discard(process)
        _ended_seconds.append(time.monotonic() - start)


def _follow(
    process: Process, on_event: Emit, watchdog: Watchdog
) -> tuple[StepResult | StepError | None, int]:
    outcome: StepResult | StepError | None = None
    resident = 0
    assert process.stdout is not None

    for line in watchdog.lines(process.stdout):
        event = from_json(line)
        if isinstance(event, StepResult | StepError):
            outcome = event
        elif isinstance(event, Heartbeat):
            resident = event.resident_bytes
        elif event is not None:
            on_event(event)

    return outcome, resident


def end_process(process: subprocess.Popen[Any] | fork_server.Forked) -> None:
    """Terminate a child process, and kill it if it is still alive after five seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=TERMINATION_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _close(process: Process) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
