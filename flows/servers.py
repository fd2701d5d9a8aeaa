"""Prefect's temporary server, where no other is configured.

Prefect starts one for a run and stops it at the end, but a killed sweep leaves its server running for good. So it is
started here, its process is written down, and the next sweep of the same home ends what a dead one left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployments.processes import command_of
from flows.doctor_checks import prefect_server
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.store import home, write_atomic

SERVER = "prefect.server.api.server"


def start_temporary_server() -> Callable[[], None]:
    """Start the server that this process's flows will use until it exits; if one is configured, only look at that.

    Returns at once what waits until it answers: starting takes seconds, in which the caller can import what it needs.
    Raises BadInput with the remedy if the configured server does not answer, or is of another version.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        for finding in prefect_server():
            if finding.level == "error":
                raise BadInput(f"The Prefect server cannot be used: {finding.detail}; {finding.remedy}.")
        return lambda: None
    end_leftovers(home())
    record = _records(home()) / f"{socket.gethostname()}-{os.getpid()}"
    atexit.register(record.unlink, missing_ok=True)  # runs after the server's own stop, which is registered later
    server = SubprocessASGIServer()
    starting = ThreadPoolExecutor(1).submit(server.start)

    def ready() -> None:
        try:
            starting.result()
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise TriageError(
                f"Prefect's temporary server did not start ({reason}); is the machine busy? Type the same command again."
            ) from error
        if server.server_process is not None:
            write_atomic(record, str(server.server_process.pid))

    return ready


def end_leftovers(root: Path) -> None:
    """End the servers whose sweeps are dead."""
    for record in sorted(_records(root).glob(f"{socket.gethostname()}-*")):
        if command_of(int(record.name.rpartition("-")[2])):
            continue
        with contextlib.suppress(ValueError, OSError):
            pid = int(record.read_text())
            if SERVER in command_of(pid):  # and not another process that has its number by now
                os.kill(pid, signal.SIGTERM)
        record.unlink(missing_ok=True)


def _records(root: Path) -> Path:
    return root / "servers"
