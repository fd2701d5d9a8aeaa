"""A process that imports what steps need and forks one process per step: imports take seconds, a fork takes none.

Only where steps follow each other (`kept`), not in a benchmark, and only on Linux: with Metal a forked process may not
compute. The server runs one step at a time. It computes nothing itself, so that MLX and MKL have no threads yet when it
forks (OpenBLAS has, and sees to them itself). It leaves when its socket closes, which its parent's end does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

OPTION = "--fork-server"
NUMBER = struct.Struct("q")
ORDER_BYTES = 1 << 18


class Forked:
    """A step's process: as much of subprocess.Popen as its parent needs."""

    def __init__(self, server: socket.socket, stdin: IO[str], stdout: IO[str]):
        self.pid = _receive(server)  # OSError if the server has just ended
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._server, self._lock = server, threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""
        with self._lock:  # the thread that reads its events may wait for it while another ends it
            if self.returncode is None and select.select([self._server], [], [], 0)[0]:
                try:
                    self.returncode = _receive(self._server)
                except (
                    OSError
                ):  # the server was killed and cannot say how its step ends: lost with it
                    self.returncode = -signal.SIGKILL
                    with contextlib.suppress(OSError):
                        self.stdin.close()  # at which a step leaves; its process id may be another's by now
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; subprocess.TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = 1.0 if end is None else end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired("step", timeout or 0)
            select.select(
                [self._server], [], [], min(left, 1.0)
            )  # another thread may have read the code
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


_kept = threading.Event()
_lock = threading.Lock()
_server: _Server | None = None
_last: Forked | None = None


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While the block runs, steps are forked from a server, which starts with the first."""
    _kept.set()
    try:
        yield
    finally:
        _kept.clear()
        end()


def fork(
    child: str, function: str, spec: Path, log: Path, environment: dict[str, str]
) -> Forked | None:
    """The process of a step, started; `child` is the module that serves. None where it cannot be forked: no server is
    kept, it is busy, or it has died. Of the environment, what is read on import stays as it was when the server started."""
    global _last
    if not _kept.is_set() or sys.platform != "linux":
        return None
    start(child, environment)
    with _lock:
        if (
            _server is None
            or _server.process.poll() is not None
            or (_last is not None and _last.poll() is None)
        ):
            return None
        try:
            wanted = {"module": function.partition(":")[0], "spec": str(spec.resolve()), "environment": environment,
                      "folder": str(Path.cwd())}  # fmt: skip
            _last = _order(_server.socket, wanted, log)
        except OSError:
            return None
        return _last


def start(child: str, environment: dict[str, str], *modules: str) -> None:
    """Start the server if there is none, ahead of the first step if `modules` are named: those it imports at once."""
    global _server
    with _lock:
        if _server is None and sys.platform == "linux":
            _server = _start(child, environment, modules)


def end() -> None:
    """End the server, if there is one."""
    global _last, _server
    _kill(_server)  # first, since `fork` may hold the lock while it waits for imports
    with _lock:
        _kill(_server)
        _server = _last = None


def _kill(server: _Server | None) -> None:
    if server is not None:
        server.process.kill()  # it holds nothing; a step that still runs is its parent's to end
        server.process.wait()


def _start(child: str, environment: dict[str, str], modules: tuple[str, ...]) -> _Server:
    ours, its = socket.socketpair(type=socket.SOCK_SEQPACKET)  # an order is one message
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", child, OPTION, *modules], env=environment,
            stdin=its.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return _Server(process, ours)


def _order(server: socket.socket, wanted: dict[str, Any], log: Path) -> Forked:
    with log.open("a") as its_log, contextlib.ExitStack() as ours:
        its_in, stdin = _pipe()
        ours.enter_context(stdin)
        with its_in:
            stdout, its_out = _pipe()
            ours.enter_context(stdout)
            with its_out:
                streams = [stream.fileno() for stream in (its_in, its_out, its_log)]
                socket.send_fds(server, [json.dumps(wanted).encode()], streams)
                forked = Forked(server, stdin, stdout)
        ours.pop_all()  # the step's to close, by its parent
        return forked


def _pipe() -> tuple[IO[str], IO[str]]:
    read, write = os.pipe()
    return os.fdopen(read), os.fdopen(write, "w")


def _receive(server: socket.socket) -> int:
    found = server.recv(NUMBER.size)
    if len(found) < NUMBER.size:
        raise OSError("The fork server has ended.")
    return int(NUMBER.unpack(found)[0])


# --- inside the server --------------------------------------------------------------------------------------------


def serve(modules: Sequence[str]) -> str:
    """Import `modules`, then fork a process per order that comes on standard input, one after the other. Returns in the
    forked process alone, with the path of its spec; its standard streams, environment and working folder are set."""
    for module in modules:
        _import(module)
    with socket.socket(fileno=0) as orders:
        while True:
            order, streams = _next(orders)
            wanted = json.loads(order)
            _import(wanted["module"])
            if (pid := os.fork()) == 0:
                orders.detach()
                break
            for number in streams:
                os.close(number)
            _tell(orders, pid)
            _, status = os.waitpid(pid, 0)
            _tell(orders, os.waitstatus_to_exitcode(status))
    for number, standard in zip(streams, (0, 1, 2), strict=True):
        os.dup2(number, standard)
        os.close(number)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    return str(wanted["spec"])


def _next(orders: socket.socket) -> tuple[bytes, list[int]]:
    try:
        order, streams, _, _ = socket.recv_fds(orders, ORDER_BYTES, 3)
    except OSError:  # its parent was killed before it read how a step ended
        os._exit(0)
    if not order:
        os._exit(0)
    return order, streams


def _tell(orders: socket.socket, number: int) -> None:
    try:
        orders.sendall(NUMBER.pack(number))
    except OSError:  # its parent is gone
        os._exit(0)


def _import(module: str) -> None:
    with contextlib.suppress(Exception):  # the step that needs it will say so
        importlib.import_module(module)
