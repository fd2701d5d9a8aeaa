"""How the process of a step starts: `python -m tasks.runtime.child SPEC`, or, while steps follow each
other on Linux's CPU, forked from multiprocessing's fork server, which has imported what steps need:
imports take seconds, a fork takes none. A forked process may not compute on a GPU.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO

from tasks.runtime.backend import can_fork
from tasks.runtime.store import process_chain

CHILD = "tasks.runtime.child"
TERMINATION_SECONDS = 5.0
LOST_SERVER = 255  # the exit code that multiprocessing gives where its server was killed

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
    _forking.set_forkserver_preload([CHILD, *modules])
    was_set = _forked_steps.is_set()
    _forked_steps.set()
    try:
        yield
    finally:
        if not was_set:
            _forked_steps.clear()


def import_ahead() -> None:
    """Let the fork server of `forked_steps` start now, and import in the background."""
    if _forks():
        forkserver.ensure_running()


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


def start_process(spec: Path, log: Path, extra: dict[str, str] | None) -> Process:
    """The process of a step, started; `extra` is added to the environment of this process.

    A forked step would have the server's value of a variable that is read on import: with `extra`
    it is not forked.
    """
    # The child must find this very code, also if the parent was started in a checkout that is not
    # installed.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # Sets TRIAGE_CHAIN where it is not set, before the variables are copied.
    process_chain()
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "TOKENIZERS_PARALLELISM": "false",
        # Read when MLX is imported: some GPUs would round float32 products to 10 bits otherwise.
        "MLX_ENABLE_TF32": "0",
        "PYTHONUNBUFFERED": "1",
    }
    if extra is None and _forks():
        # A server that died is replaced with the next step.
        with contextlib.suppress(OSError, EOFError):
            return Forked(spec, log, environment)

    with log.open("a") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", CHILD, str(spec)],
            env=environment | (extra or {}),
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
