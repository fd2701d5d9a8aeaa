"""A process that imports what steps need and forks one process per step: imports take seconds, a
fork takes none. This is its parent's side; what it does itself is in forking.py.

It is used only while steps follow each other (`forked_steps`), not in a benchmark, and only on
Linux's CPU: a forked process may not compute on a GPU. The server runs one step at a time.

`multiprocessing`'s forkserver is no replacement: all its children share the server's standard
streams, environment and working folder, and it imports modules only when it starts, not those of a
later step. Pipes, environment, folder, the watch for the parent and the rule for a busy server
would still have to be set up here, around a protocol that pickles, in no fewer lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, NamedTuple

from tasks.runtime.backend import can_fork
from tasks.runtime.forking import NUMBER, OPTION, Order
from tasks.runtime.watchdog import SILENT_SECONDS


class Forked:
    """A step's process: as much of subprocess.Popen as its parent needs."""

    def __init__(self, server: socket.socket, stdin: IO[str], stdout: IO[str]) -> None:
        """Raises OSError if the server has just ended, or gives no sign of life."""
        if not select.select([server], [], [], SILENT_SECONDS)[0]:
            raise OSError(f"The fork server has not answered for {SILENT_SECONDS:.0f} s.")
        self.pid = _receive(server)
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._server = server
        # The thread that reads the events may wait for the process while another thread ends it.
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, negative if a signal ended it; None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._server], [], [], 0)[0]:
                self.returncode = self._read_exit_code()
        return self.returncode

    def _read_exit_code(self) -> int:
        try:
            return _receive(self._server)
        except OSError:
            # The server was killed and cannot say how its step ends, so the step is lost with it. A
            # step exits when its standard input closes; its process id may belong to another
            # process by now.
            with contextlib.suppress(OSError):
                self.stdin.close()
            return -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises subprocess.TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            remaining = 1.0 if end is None else end - time.monotonic()
            if remaining <= 0:
                raise subprocess.TimeoutExpired("step", timeout or 0)
            # At most a second at a time: another thread may read the code.
            select.select([self._server], [], [], min(remaining, 1.0))

        return code

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Server(NamedTuple):
    process: subprocess.Popen[bytes]
    socket: socket.socket


_forked_steps = threading.Event()
_lock = threading.Lock()
_server: _Server | None = None
_last: Forked | None = None


@contextlib.contextmanager
def forked_steps() -> Iterator[None]:
    """While the block runs, steps are forked from a server, which starts with the first step."""
    _forked_steps.set()
    try:
        yield
    finally:
        _forked_steps.clear()
        end()


def fork(
    child: str, function: str, spec: Path, log: Path, environment: dict[str, str]
) -> Forked | None:
    """The process of a step, started; `child` is the module that serves.

    None if it cannot be forked: no server is kept, or it is busy, hangs or has just died.
    Variables that are read on import keep the value that they had when the server started.
    """
    global _last
    if not _forked_steps.is_set() or not can_fork():
        return None

    start(child, environment)
    module = function.partition(":")[0]
    order = Order(module, str(spec.resolve()), environment, str(Path.cwd()))

    with _lock:
        if _server is None or not _is_idle(_server):
            return None
        try:
            _last = _send_order(_server.socket, order, log)
        except OSError:
            _kill(_server)  # one that hangs would take the order later
            return None
        return _last


def _is_idle(server: _Server) -> bool:
    """Whether the server is alive and the last step that it forked has ended."""
    return _is_alive(server) and (_last is None or _last.poll() is not None)


def _is_alive(server: _Server) -> bool:
    return server.process.poll() is None


def start(child: str, environment: dict[str, str], *modules: str) -> None:
    """Start the server if there is none, or if it has died.

    It imports `modules` at once, ahead of the first step.
    """
    global _last, _server
    if not can_fork():
        return

    with _lock:
        if _server is not None and not _is_alive(_server):
            # Whoever waits for its last step has the step, and with
            # it the socket, and sees its end.
            _server = _last = None
        if _server is None:
            _server = _start(child, environment, modules)


def end() -> None:
    """End the server, if there is one."""
    global _last, _server
    # Before the lock is taken: `fork` may hold it while it waits for imports.
    _kill(_server)
    with _lock:
        _kill(_server)
        _server = None
        _last = None


def kill() -> None:
    """Kill the server, if there is one, without waiting for anything."""
    if _server is not None:
        _server.process.send_signal(signal.SIGKILL)


def _kill(server: _Server | None) -> None:
    # The server holds nothing that could be lost; a step that still runs is ended by its parent.
    if server is not None:
        server.process.kill()
        server.process.wait()


def _start(child: str, environment: dict[str, str], modules: tuple[str, ...]) -> _Server:
    # SOCK_SEQPACKET keeps the borders of messages: an order is one message.
    parent_end, server_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with server_end:
        process = subprocess.Popen(
            [sys.executable, "-m", child, OPTION, *modules],
            env=environment,
            stdin=server_end.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return _Server(process, parent_end)


def _send_order(server: socket.socket, order: Order, log: Path) -> Forked:
    """Send an order with the step's three standard streams.

    Returns its process, with this process's ends of two.
    """
    with log.open("a") as step_log, contextlib.ExitStack() as on_failure:
        step_stdin, stdin = _pipe()
        on_failure.enter_context(stdin)
        with step_stdin:
            stdout, step_stdout = _pipe()
            on_failure.enter_context(stdout)
            with step_stdout:
                streams = [stream.fileno() for stream in (step_stdin, step_stdout, step_log)]
                message = json.dumps(asdict(order)).encode()
                socket.send_fds(server, [message], streams)
                forked = Forked(server, stdin, stdout)

        # From here on, whoever runs the step closes its streams.
        on_failure.pop_all()
        return forked


def _pipe() -> tuple[IO[str], IO[str]]:
    read, write = os.pipe()
    return os.fdopen(read), os.fdopen(write, "w")


def _receive(server: socket.socket) -> int:
    message = server.recv(NUMBER.size)
    if len(message) < NUMBER.size:
        raise OSError("The fork server has ended.")
    return int(NUMBER.unpack(message)[0])
