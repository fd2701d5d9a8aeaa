"""Prefect's temporary server, where no other is configured.

Prefect would start one by itself, after four seconds of imports that only a server needs, and a killed sweep would leave
it running for good. So it is started here as Prefect starts it, its process is written down, and the next sweep of the
same home ends what a dead one left.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from deployments.prefect_api import NoVersion, server_version
from deployments.started_processes import command_of
from deployments.up import HOST, api_url
from tasks.runtime.child import end_process
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.store import home, write_atomic

SERVER = "prefect.server.api.server"
LIKE_PREFECTS_OWN = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
NAMES_A_SERVER = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")


def start_temporary_server() -> Callable[[], AbstractContextManager[object]]:
    """Start a server that lives until this process exits; if one is configured, only look at that.

    Returns at once a function that waits until the server answers and gives the context to run flows in: starting takes
    seconds, in which the caller can import what it needs, Prefect first of all. Raises BadInput with the remedy if the
    configured server does not answer, or is of another version.
    """
    if _may_be_configured() and _configured_server_answers():
        return nullcontext
    end_orphaned_servers(home())
    server = _Server(_records(home()) / f"{socket.gethostname()}-{os.getpid()}")
    atexit.register(server.end)  # runs after Prefect's own, registered later
    server.start()

    def ready() -> AbstractContextManager[object]:
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
            temporary_settings,
        )

        server.wait(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        # Nobody looks for lost runs there, and the end of each flow would wait a second for its heartbeat.
        return temporary_settings(
            {PREFECT_API_URL: api_url(server.port), PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        )

    return ready


class _Server:
    """Prefect's server, in a process that is written down in `record` until it has ended."""

    def __init__(self, record: Path) -> None:
        self.port, self._record, self._answered = 0, record, False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.port = _free_port()
        self._process = _start(self.port)
        write_atomic(self._record, str(self._process.pid))

    def wait(self, seconds: float) -> None:
        """Return once it answers. Raises TriageError if it ends before, twice, or takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        if not self._answers(deadline) and time.monotonic() < deadline:
            self.start()  # another program may have taken its port before it did
            self._answers(deadline)
        if not self._answered:
            code = self._process.poll() if self._process else None
            reason = "it does not answer" if code is None else f"it ended with code {code}"
            raise TriageError(
                f"Prefect's temporary server did not start ({reason}); is the machine busy? Type the same command again."
            )

    def _answers(self, deadline: float) -> bool:
        """Wait until it answers; False if it ended before, or the time is over."""
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            with contextlib.suppress(NoVersion):
                server_version(api_url(self.port))
                self._answered = True
                break
            time.sleep(0.05)
        return self._answered

    def end(self) -> None:
        """End it, and forget it."""
        if self._process is not None:
            if not self._answered:
                self._process.kill()  # asked to, it would first finish starting
            end_process(self._process)
        with contextlib.suppress(OSError):
            self._record.unlink()


def end_orphaned_servers(root: Path) -> None:
    """End the servers whose sweeps are dead."""
    for record in sorted(_records(root).glob(f"{socket.gethostname()}-*")):
        if command_of(int(record.name.rpartition("-")[2])):
            continue
        with contextlib.suppress(ValueError, OSError):
            pid = int(record.read_text())
            if SERVER in command_of(pid):  # and not another process that has its number by now
                os.kill(pid, signal.SIGTERM)
        record.unlink(missing_ok=True)


def _may_be_configured() -> bool:
    """Whether any of the places that Prefect reads its settings from could name a server; if none, do not wait for it."""
    own = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    project = Path("pyproject.toml")
    return (
        any(name in os.environ for name in NAMES_A_SERVER)
        or any(
            path.exists() for path in (own / "profiles.toml", Path(".env"), Path("prefect.toml"))
        )
        or (project.is_file() and b"[tool.prefect" in project.read_bytes())
        or "prefect.context" in sys.modules  # asking is free, and a program may have set one
    )


def _configured_server_answers() -> bool:
    """False where no server is configured."""
    from prefect.settings import PREFECT_API_URL

    from deployments.prefect_api import check_prefect_server

    if not PREFECT_API_URL.value():
        return False
    for finding in check_prefect_server():
        if finding.level == "error":
            raise BadInput(
                f"The Prefect server cannot be used: {finding.detail}; {finding.remedy}."
            )
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _start(port: int) -> subprocess.Popen[bytes]:
    found = importlib.util.find_spec("prefect")
    assert found is not None and found.origin is not None
    packages = str(
        Path(found.origin).parent.parent
    )  # and never the current folder, which may hold any module
    command = [
        "-P",
        "-m",
        "uvicorn",
        "--app-dir",
        packages,
        "--factory",
        f"{SERVER}:create_app",
        "--host",
        HOST,
    ]
    quiet = ["--port", str(port), "--log-level", "error", "--lifespan", "on"]
    # Ctrl-C goes to all in the terminal's foreground. The sweep, which ends the server, must still reach it.
    return subprocess.Popen(
        [sys.executable, *command, *quiet],
        env=os.environ | LIKE_PREFECTS_OWN,
        start_new_session=True,
    )


def _records(root: Path) -> Path:
    return root / "servers"
