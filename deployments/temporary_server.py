"""Prefect's temporary server, for sweeps where no other one is configured.

Prefect would start one itself, after four seconds of imports that only a server needs, and a killed
sweep would leave it running for good. So it is started here as Prefect starts it, its process is
recorded, and the next sweep of the same home ends the servers of dead ones.
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

from deployments.prefect_api import HOST, NoAnswer, api_url, is_open, server_version
from deployments.started_processes import command_of, is_older
from tasks.runtime.child import end_process
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.home import home
from tasks.runtime.store import write_atomic

SERVER = "prefect.server.api.server"
LIKE_PREFECTS_OWN = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
NAMES_A_SERVER = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")


def start_temporary_server() -> Callable[[], AbstractContextManager[object]]:
    """Start a server that lives until this process exits.

    A server that is configured is checked instead. Returns at once a function that waits until the
    server answers and gives the context to run flows in: starting takes seconds, in which the
    caller can import what it needs, Prefect first of all. Raises BadInput with the remedy if the
    configured server does not answer, or is of another version.
    """
    if _may_be_configured() and _configured_server_answers():
        return nullcontext
    end_orphaned_servers(home())
    server = _Server(_records(home()) / f"{socket.gethostname()}-{os.getpid()}")
    atexit.register(server.end)  # runs after Prefect's own, registered later
    server.start()

    def wait_for_server() -> AbstractContextManager[object]:
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
            temporary_settings,
        )

        server.wait(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        # Nobody looks for lost runs there, and the end of each flow would wait a second for its
        # heartbeat.
        return temporary_settings(
            {PREFECT_API_URL: api_url(server.port), PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        )

    return wait_for_server


class _Server:
    """Prefect's server, in a process that `record` names until it has ended."""

    def __init__(self, record: Path) -> None:
        self.port = 0
        self._record = record
        self._answered = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.port = _free_port()
        self._process = _start(self.port)
        write_atomic(self._record, str(self._process.pid))

    def wait(self, seconds: float) -> None:
        """Return once it answers.

        Raises TriageError if it ends before, twice, or takes longer than `seconds`.
        """
        deadline = time.monotonic() + seconds
        if not self._answers(deadline) and time.monotonic() < deadline:
            self.start()  # another program may have taken its port before it did
            self._answers(deadline)
        if not self._answered:
            code = self._process.poll() if self._process else None
            reason = "it does not answer" if code is None else f"it ended with code {code}"
            raise TriageError(
                f"Prefect's temporary server did not start ({reason}); is the machine busy? "
                "Run the same command again."
            )

    def _answers(self, deadline: float) -> bool:
        """Wait until it answers; False if it ended before, or the time is over."""
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            with contextlib.suppress(NoAnswer):
                if is_open(self.port):
                    server_version(api_url(self.port))
                    self._answered = True
                    break
            time.sleep(0.05)
        return self._answered

    def end(self) -> None:
        """End the process and remove its record."""
        if self._process is not None:
            if not self._answered:
                self._process.kill()  # SIGTERM would let it finish starting first
            end_process(self._process)
        with contextlib.suppress(OSError):
            self._record.unlink()


def end_orphaned_servers(root: Path) -> None:
    """End the servers whose sweeps are dead.

    A record, named after its sweep's process, holds the server's.
    """
    for record in sorted(_records(root).glob(f"{socket.gethostname()}-*")):
        if is_older(int(record.name.rpartition("-")[2]), record):
            continue
        with contextlib.suppress(ValueError, OSError):
            pid = int(record.read_text())
            if SERVER in command_of(pid) and is_older(pid, record):
                os.kill(pid, signal.SIGTERM)
        record.unlink(missing_ok=True)


def _may_be_configured() -> bool:
    """Whether any place that Prefect reads its settings from could name a server.

    Imports nothing.
    """
    prefect_home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    settings_files = (prefect_home / "profiles.toml", Path(".env"), Path("prefect.toml"))
    project = Path("pyproject.toml")
    return (
        any(name in os.environ for name in NAMES_A_SERVER)
        or any(path.exists() for path in settings_files)
        or (project.is_file() and b"[tool.prefect" in project.read_bytes())
        or "prefect.context" in sys.modules  # imported already: a program may have set one
    )


def _configured_server_answers() -> bool:
    """False where no server is configured. Raises BadInput if the configured one cannot be used."""
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
    prefect = importlib.util.find_spec("prefect")
    assert prefect is not None and prefect.origin is not None
    # Never the current folder, which may hold any module: that is what -P and --app-dir are for.
    packages = str(Path(prefect.origin).parent.parent)
    application = ["--app-dir", packages, "--factory", f"{SERVER}:create_app"]
    address = ["--host", HOST, "--port", str(port)]
    quiet = ["--log-level", "error", "--lifespan", "on"]
    # Ctrl-C goes to all in the terminal's foreground. The sweep, which ends the server, must still
    # reach it.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "uvicorn", *application, *address, *quiet],
        env=os.environ | LIKE_PREFECTS_OWN,
        start_new_session=True,
    )


def _records(root: Path) -> Path:
    return root / "servers"
