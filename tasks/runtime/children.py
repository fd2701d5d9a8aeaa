"""Child processes, one per MLX step, as their parent sees them: it starts each, follows it to its
end, says which error its ending amounts to, and ends those that still run when the sweep is
interrupted. What happens inside one is in child.py.

A process starts as `python -m tasks.runtime.child SPEC`, or, while steps follow each other on
Linux's CPU, forked from multiprocessing's fork server, which has imported what steps need: imports
take seconds, a fork takes none. A forked process may not compute on a GPU.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from tasks.runtime.backend import can_fork, refuse_unusable_mlx
from tasks.runtime.device import settle_blas
from tasks.runtime.errors import (
    BY_NAME,
    CLOSE_PROGRAMS,
    LOST_PARENT,
    GpuFailed,
    LostChild,
    OutOfMemory,
    Stopped,
    TookTooLong,
    TriageError,
    device_error,
    disk_full,
)
from tasks.runtime.events import (
    Emit,
    Event,
    Heartbeat,
    Kept,
    StepError,
    StepResult,
    StepWarning,
    from_json,
)
from tasks.runtime.files import write_atomic
from tasks.runtime.locks import accelerator_reserved
from tasks.runtime.store import CHAIN, process_chain

CHILD = "tasks.runtime.child"
TERMINATION_SECONDS = 5.0
LOST_SERVER = 255  # the exit code that multiprocessing gives where its server was killed
Arguments = dict[str, Any]  # JSON: each job parses it into a class of its own
LOSSES = 3  # in a row, without progress between them, after which a step fails
SILENT_SECONDS = 600.0  # a child sends a heartbeat every two seconds
TICKS = 100  # of the watch over a child, in that time
# Of the budget, by the last heartbeat: a process that is killed with more ran out of memory.
MEMORY_SHARE_OF_OOM = 0.9
NEARLY_FULL_BYTES = 16 << 20
METAL = re.compile(r"(?:\[METAL\]|\[metal::|\*\*\* Terminating app).*")

_running: set[Process] = set()
_ended_seconds: list[float] = []  # of each child that has ended
_stopping = threading.Event()  # no further child starts
_interrupted = threading.Event()  # the command, by a signal or by the loss of the server
_forking = multiprocessing.get_context("forkserver")
_forked_steps = threading.Event()
# An ending can be read once, and a start reads those of all processes: of two threads that read one
# at once, one would get LOST_SERVER.
_endings = threading.Lock()


class Forked:
    """A step's process that was forked: as much of subprocess.Popen as its parent needs.

    Raises OSError or EOFError if the server has just died.
    """

    def __init__(self, spec: Path, log: Path, environment: dict[str, str]) -> None:
        requests, to_step = _forking.Pipe(duplex=False)
        from_step, events = _forking.Pipe(duplex=False)
        with requests, to_step, from_step, events:
            args = (spec, log, environment, requests, events)
            self._process = _forking.Process(target=_become_step, args=args, daemon=True)
            import_ahead()
            with _endings:
                self._process.start()
            self.stdin: IO[str] = os.fdopen(os.dup(to_step.fileno()), "w")
            self.stdout: IO[str] = os.fdopen(os.dup(from_step.fileno()))

        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative if a signal ended it; None while it runs."""
        with _endings:
            code = self._process.exitcode
        if code != LOST_SERVER:
            return code

        # Nobody learns how the step ends, so it is lost with the server. It exits when its standard
        # input closes; its process id may belong to another process by now.
        with contextlib.suppress(OSError):
            self.stdin.close()
        return -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises subprocess.TimeoutExpired after `timeout` seconds."""
        wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("step", timeout or 0)
        return code

    def terminate(self) -> None:
        self.poll()  # no signal to a process that has ended, whose id may be another's
        self._process.terminate()

    def kill(self) -> None:
        self.poll()
        self._process.kill()


Process = subprocess.Popen[str] | Forked


def _become_step(
    spec: Path, log: Path, environment: dict[str, str], requests: Connection, events: Connection
) -> None:
    """In the forked process: take the place of `python -m tasks.runtime.child SPEC`."""
    with log.open("a") as stream:
        for standard, source in enumerate((requests.fileno(), events.fileno(), stream.fileno())):
            os.dup2(source, standard)
    requests.close()
    events.close()
    os.environ.clear()
    os.environ.update(environment)

    from tasks.runtime.child import main

    main(spec)


@contextlib.contextmanager
def forked_steps(*modules: str) -> Iterator[None]:
    """While the block runs, steps are forked from a server that has imported `modules`; it starts
    with the first step, and ends with this process.
    """
    settle_blas()  # which the server loads
    _forking.set_forkserver_preload([CHILD, *modules])
    was_set = _forked_steps.is_set()
    _forked_steps.set()
    try:
        yield
    finally:
        if not was_set:
            _forked_steps.clear()


def import_ahead() -> None:
    """Let the fork server of `forked_steps` start, unless it runs, and import in the background.

    Ctrl-C at a terminal reaches the server, too, which would print a traceback while it imports: it
    starts with SIGINT blocked.
    """
    if not _forks():
        return
    resource_tracker.ensure_running()  # which unblocks SIGINT when it starts
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _forks() -> bool:
    """Whether steps are forked. A forked process imports the main module of its parent first: with
    Prefect's engine would come Prefect, and a user's script would run again.
    """
    if not _forked_steps.is_set() or not can_fork():
        return False

    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name.endswith("__main__")  # not imported, as of `python -m pytest`
    file = getattr(main, "__file__", None)
    # `python -c`, or a console script such as `triage`.
    return file is None or Path(file).resolve().parent == Path(sys.executable).parent.resolve()


def start_process(spec: Path, log: Path) -> Process:
    # The child must find this very code, also if the parent was started in a checkout that is not
    # installed.
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        # Read by Apple's driver: the watchdog of a display that is on waits longer for the GPU.
        "AGX_RELAX_CDM_CTXSTORE_TIMEOUT": "1",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "TOKENIZERS_PARALLELISM": "false",
        # Read when MLX is imported: some GPUs would round float32 products to 10 bits otherwise.
        "MLX_ENABLE_TF32": "0",
        "PYTHONUNBUFFERED": "1",
        CHAIN: process_chain(),
    }
    if _forks():
        # A server that died is replaced with the next step.
        with contextlib.suppress(OSError, EOFError):
            return Forked(spec, log, environment)

    with log.open("a") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", CHILD, str(spec)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )


def end_process(process: subprocess.Popen[str] | subprocess.Popen[bytes] | Forked) -> None:
    """Terminate a child process, and kill it if it is still alive after five seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=TERMINATION_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_step(
    function: str,
    args: Arguments,
    folder: Path,
    on_event: Emit,
    at_most: float | None = None,
    *,
    memory_budget: int | None = None,
) -> dict[str, Any]:
    """`run_child`, run again with a warning where the child was lost or the GPU failed, LOSSES
    times: neither uses up a retry of the step's task. The count starts over where the child has
    `Kept` something since the last loss.
    """
    losses = 0

    def count_anew(event: Event) -> None:
        nonlocal losses
        if isinstance(event, Kept):
            losses = 0
        on_event(event)

    while True:
        try:
            return run_child(
                function, args, folder, count_anew, memory_budget=memory_budget, at_most=at_most
            )
        except (LostChild, GpuFailed) as error:
            losses += 1
            if losses > LOSSES or isinstance(error, TookTooLong):
                raise
            on_event(StepWarning(f"{error} It is started again."))


def run_child(
    function: str,
    args: Arguments,
    folder: Path,
    on_event: Emit = lambda event: None,
    memory_budget: int | None = None,
    on_start: Callable[[IO[str]], None] | None = None,
    at_most: float | None = None,
) -> dict[str, Any]:
    """Call `module:function` with `args` (JSON) in a child process and return its result (JSON).

    `folder` receives `spec.json`, a record, and `child.log` (everything that libraries print);
    `on_start` gets the step's standard input; after `at_most` seconds the child is killed. However
    this function is left, the child has ended by then.

    Raises the typed error that the child reported, LostChild if a signal killed it, or OutOfMemory
    if it was killed while it held 90 % of `memory_budget`; or BadInput, before anything starts,
    where MLX cannot be loaded as it is installed.
    """
    refuse_if_stopping()
    refuse_unusable_mlx()
    spec = json.dumps({"function": function, "args": args}, indent=1)
    write_atomic(folder / "spec.json", spec)
    # The child reads a file of its own: another process may start a step with this folder
    # meanwhile, and then the record is that step's.
    own_spec = folder / f"spec-{secrets.token_hex(6)}.json"
    write_atomic(own_spec, spec)
    log = folder / "child.log"
    # Steps append to one log: what it holds by now is not this child's.
    log_start = log.stat().st_size if log.exists() else 0
    outcome: StepResult | StepError | None = None
    resident = 0

    with contextlib.ExitStack() as stack:
        stack.callback(own_spec.unlink, missing_ok=True)
        # A step that answers requests may run for hours, and others do not wait for it.
        if on_start is None:
            stack.enter_context(accelerator_reserved(refuse_if_stopping, on_event))
        process = stack.enter_context(_started(own_spec, log))
        # The sweep may have been interrupted while the process started.
        refuse_if_stopping()
        assert process.stdin is not None and process.stdout is not None
        if on_start is not None:
            on_start(process.stdin)

        for line in watched_lines(process.stdout.fileno(), log, at_most):
            event = from_json(line)
            if isinstance(event, StepResult | StepError):
                outcome = event
            elif isinstance(event, Heartbeat):
                resident = event.resident_bytes
            elif event is not None:
                on_event(event)
        code = process.wait()

    if code == 0 and isinstance(outcome, StepResult):
        return outcome.result

    # A child that was ended because the sweep stops is no error of its step.
    refuse_if_stopping()
    if isinstance(outcome, StepError) and outcome.kind:
        raise BY_NAME[outcome.kind](outcome.message)
    if (
        code == -signal.SIGKILL
        and memory_budget
        and resident >= MEMORY_SHARE_OF_OOM * memory_budget
    ):
        raise OutOfMemory(
            f"The step was killed while it held {resident / 1e9:.1f} GB of a budget of "
            f"{memory_budget / 1e9:.1f} GB. {CLOSE_PROGRAMS}"
        )
    # A write into a mapped file ends this way on a full disk.
    if code == -signal.SIGBUS and shutil.disk_usage(folder).free < NEARLY_FULL_BYTES:
        raise disk_full(folder)
    if code == -signal.SIGABRT:
        # MLX raises some of Metal's errors on a thread of the driver, where nothing can catch them.
        words = log.read_bytes()[log_start:].decode(errors="replace")
        if lines := METAL.findall(words):
            metal = lines[-1].strip()
            raise device_error(metal) or GpuFailed(f"The GPU's driver ended the step: {metal}.")
    if code < 0:
        raise LostChild(f"The step's process was ended by signal {-code}; its log is {log}.")
    if code == LOST_PARENT:
        raise LostChild(f"The step's process exited, as its pipe had closed; its log is {log}.")

    reason = outcome.message if isinstance(outcome, StepError) else f"exit code {code}"
    raise TriageError(f"The step failed: {reason}. Its log is {log}.")


@contextlib.contextmanager
def _started(spec: Path, log: Path) -> Iterator[Process]:
    """The process of a step, which has ended when the block has."""
    process = start_process(spec, log)
    _running.add(process)
    start = time.monotonic()
    try:
        yield process
    except LostChild:
        process.kill()  # a process that was stopped is not terminated
        raise
    finally:
        end_process(process)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        _running.discard(process)
        _ended_seconds.append(time.monotonic() - start)


def watched_lines(stream: int, log: Path, at_most: float | None = None) -> Iterator[str]:
    """The lines that a child writes to a pipe, each a sign of life, until it ends.

    Raises LostChild if it sends nothing for SILENT_SECONDS (it hangs, or was stopped), and
    TookTooLong if it runs for longer than `at_most` seconds. Ticks are counted and not the time:
    after a sleep of the machine, or of this process, the child has as long as ever. While a line is
    being handled, no silence is counted.
    """
    tick = min(SILENT_SECONDS, at_most or SILENT_SECONDS) / TICKS
    silent = taken = 0.0
    remainder = b""

    while True:
        if silent >= SILENT_SECONDS:
            raise LostChild(
                f"The step's process sent no sign of life for {SILENT_SECONDS / 60:.0f} min and "
                f"was killed; its log is {log}."
            )
        if at_most is not None and taken >= at_most:
            raise TookTooLong(
                f"The step took longer than {at_most / 60:.3g} min, the time_limit of its grid, "
                f"and was killed; its log is {log}."
            )

        start = time.monotonic()
        if wait([stream], tick):
            data = os.read(stream, 65536)
            if not data:
                return
            *lines, remainder = (remainder + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            silent = 0.0
        else:
            silent += tick
        taken += min(tick, time.monotonic() - start)


def step_seconds() -> float:
    """Seconds that the children of this process ran that have ended."""
    return sum(_ended_seconds)


def refuse_if_stopping() -> None:
    """Raise Stopped once no further child is to start."""
    if _stopping.is_set():
        raise Stopped("The sweep was stopped.")


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
    """End every child of this process and start no more. `interrupted`: False where an error ends
    the command, which may then take the time it needs to say so.
    """
    if interrupted:
        _interrupted.set()
    _stopping.set()
    for process in list(_running):
        # The streams are closed by the thread that reads them.
        end_process(process)


def kill_children() -> None:
    """Kill every child of this process and start no more, at once: no lock is taken, since a
    signal's handler may call this in the middle of anything.
    """
    start_no_more()
    for process in list(_running):
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)
