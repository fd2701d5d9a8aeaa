"""Prefect's temporary server, for sweeps where no other one is configured.

Prefect would start one itself, after four seconds of imports that only a server needs, and a killed
sweep would leave it running for good. So it is started here, much as Prefect starts it: it leaves
when its sweep is gone, and a sweep starts another one if it ends.

The sweep itself holds the socket on which the server listens. While one server has ended and the
next is starting, requests wait there instead of being refused, and the port stays the same.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from deployments.prefect_api import HOST, ORIGINS, SERVER_AUTH, NoAnswer, api_url, server_version
from tasks.runtime.children import end_process
from tasks.runtime.errors import TriageError

PROGRAM = Path(__file__).with_name("bound_process.py")
BACKLOG = 128  # requests that wait while no server runs
LIKE_PREFECTS_OWN = {
    ORIGINS: f"http://{HOST}",  # no page of a browser
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",  # a fifth of its start, and no sweep uses one
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
NAMES_A_SERVER = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
POLL_SECONDS = 1.0  # after which it is seen at the latest that the server has ended
ATTEMPTS = 2  # at starting a server that answers before it ends
Say = Callable[[str], None]
LOST = (
    "Prefect's temporary server ended and could not be started again. Finished work is kept; "
    "run the same command again to continue."
)


class TemporaryServer:
    """Prefect's server while a sweep runs.

    `say` receives a sentence when the server ended and when its successor runs; `on_loss` is called
    if none could be started any more.
    """

    def __init__(self, say: Say, on_loss: Callable[[], None]) -> None:
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        self._listener.listen(BACKLOG)
        self._say = say
        self._lost = on_loss
        self._answered = False
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()  # no server is started while the last one is being ended

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Start a process; it answers seconds later."""
        with self._lock:
            if self._ending.is_set():
                return
            self._answered = False
            self._process = _start(self._listener)

    def wait(self, seconds: float) -> None:
        """Return once it answers; from then on another one is started whenever it ends.

        Raises TriageError if it ends before, twice, or takes longer than `seconds`.
        """
        if not self._answers(seconds, ATTEMPTS - 1):
            raise TriageError(
                f"Prefect's temporary server did not start ({self._state()}); "
                "is the machine busy? Run the same command again."
            )

        threading.Thread(target=self._keep, args=(seconds,), daemon=True).start()

    def _answers(self, seconds: float, starts: int) -> bool:
        """Whether a server answers within so long; for one that has ended others are started, so
        many.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._ending.is_set():
            if not self._runs():
                if not starts:
                    return False
                starts -= 1
                with contextlib.suppress(OSError):  # no memory for another process
                    self.start()
            with contextlib.suppress(NoAnswer):
                server_version(api_url(self.port))
                self._answered = True
                return True
            time.sleep(0.05)
        return False

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _state(self) -> str:
        code = self._process.poll() if self._process else None
        if code is None:
            return "it does not answer"
        return f"it ended with code {code}" if code >= 0 else f"it was ended by signal {-code}"

    def _keep(self, seconds: float) -> None:
        """Start another server whenever this one ends, until `end`."""
        while not self._ending.wait(POLL_SECONDS):
            if self._runs():
                continue
            self._say(f"Prefect's temporary server is gone ({self._state()}); starting another ...")
            if self._answers(seconds, ATTEMPTS):
                self._say("Prefect's temporary server runs again; the sweep goes on.")
            elif not self._ending.is_set():
                self._lost()
                return

    def end(self) -> None:
        """End the process."""
        # Before the lock is taken: a thread that waits for it then starts no further server.
        self._ending.set()
        with self._lock:
            if self._process is not None:
                if not self._answered:
                    self._process.kill()  # SIGTERM would let it finish starting first
                end_process(self._process)

    def kill(self) -> None:
        """As `end`, at once, also while another thread waits in `end`."""
        self._ending.set()
        if self._process is not None:
            self._process.kill()


def start_temporary_server(say: Say, on_loss: Callable[[], None]) -> TemporaryServer | None:
    """Start a server that lives until this process exits; see TemporaryServer for the arguments.

    None if a server is configured, which is checked instead. Returns at once: starting takes
    seconds, in which the caller can import what it needs, Prefect first of all. Raises BadInput
    with the remedy if the configured server does not answer, or is of another version.
    """
    if _may_be_configured():
        from prefect.settings import PREFECT_API_URL

        from deployments.prefect_api import refuse_unusable_server

        if PREFECT_API_URL.value():
            refuse_unusable_server()
            return None

    server = TemporaryServer(say, on_loss)
    atexit.register(server.end)  # runs after Prefect's own, registered later
    server.start()

    return server


def used(server: TemporaryServer | None) -> AbstractContextManager[object]:
    """Wait until the server answers; the context to run flows in."""
    if server is None:
        return nullcontext()

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


def _start(listener: socket.socket) -> subprocess.Popen[bytes]:
    descriptor = listener.fileno()
    application = "prefect.server.api.server:create_app"
    # Never the current folder, which may hold any module: that is what -P is for.
    command = [sys.executable, "-P", str(PROGRAM), "uvicorn", application, str(descriptor)]
    # The password is that of `triage up`; this server's sweep sends none.
    inherited = {name: value for name, value in os.environ.items() if name != SERVER_AUTH}
    # Ctrl-C goes to all in the terminal's foreground. The sweep, which ends the server, must still
    # reach it.
    return subprocess.Popen(
        command,
        env=inherited | LIKE_PREFECTS_OWN,
        stdin=subprocess.PIPE,
        pass_fds=[descriptor],
        start_new_session=True,
    )
