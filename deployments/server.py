"""Prefect's server as its client sees it, and the temporary one of a sweep where none is configured.

Prefect is imported by the functions that need it: a sweep starts its temporary server while it
imports Prefect.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.runtime.backend import is_mac
from tasks.runtime.children import end_process
from tasks.runtime.errors import BadInput, Finding, TriageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"  # user:password, which a server asks for
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"  # of the pages that a server answers
SECONDS = 3.0  # a server that takes longer to give its version does not answer
REQUEST_SECONDS = 20.0  # a server that is busy with runs may take longer than that
CONNECT_ATTEMPTS = 4  # the client's, of which each may take its part of the time
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
LOST = (
    "Prefect's temporary server ended and could not be started again. Finished work is kept; "
    "run the same command again to continue."
)
Say = Callable[[str], None]


class NoAnswer(Exception):
    """A Prefect server does not answer, or not as one.

    `status`: the HTTP status, where a web server answered.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def api_url(port: int) -> str:
    """The address of the API of a server on this machine."""
    return f"http://{HOST}:{port}/api"


def is_open(port: int) -> bool:
    """Whether a program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((HOST, port)) == 0


@contextlib.contextmanager
def prefect_client(
    api: str, seconds: float | None = None, retries: int = 0
) -> Iterator[SyncPrefectClient]:
    """Prefect's client of the server at `api`, with credentials and certificates of the settings.

    Its requests fail after `seconds` (REQUEST_SECONDS) and are repeated `retries` times, which may
    take a minute. Raises NoAnswer.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    limit = seconds or REQUEST_SECONDS
    timeout = httpx.Timeout(limit, connect=limit / CONNECT_ATTEMPTS)

    try:
        with (
            temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: retries}),
            get_client(sync_client=True, httpx_settings={"timeout": timeout}) as client,
        ):
            yield client
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise NoAnswer(f"status {status}", status) from error
    # A ValueError is an answer that is no JSON, or not one of Prefect's.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


def configured_api() -> str:
    """The address of the API that Prefect's settings name, e.g. PREFECT_API_URL.

    Raises BadInput if none is set.
    """
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    if not api:
        raise BadInput(
            "A work pool needs a Prefect server, and none is set; set PREFECT_API_URL to its "
            "address, e.g. http://192.168.1.20:4200/api."
        )

    return str(api)


@contextlib.contextmanager
def answering(api: str) -> Iterator[None]:
    """Turn NoAnswer into a sentence that says what to check."""
    try:
        yield
    except NoAnswer as error:
        if error.status in (401, 403):
            raise BadInput(
                f"The Prefect server at {api} refuses the request (status {error.status}); set "
                "PREFECT_API_AUTH_STRING to the user and password with which it was started."
            ) from error
        raise BadInput(
            f"No Prefect server answers at {api} ({error}); start one with `triage up`, or correct "
            f"the address{_privacy_of_a_mac(error)}."
        ) from error


def _privacy_of_a_mac(error: NoAnswer) -> str:
    """What else to check on a Mac: since macOS 15 it refuses the local network in these words to a
    program that nobody has allowed it, such as an agent of launchd.
    """
    if not is_mac() or "No route to host" not in str(error):
        return ""
    return (
        "; or macOS keeps this program from the local network: allow it under System Settings > "
        "Privacy & Security > Local Network, or run it from Terminal"
    )


def server_version(api: str) -> str:
    """Version of the Prefect server at `api`. Raises NoAnswer, also after SECONDS."""
    with prefect_client(api, SECONDS) as client:
        return str(client.api_version())


def set_damaged_database_aside(folder: Path) -> str | None:
    """Rename the SQLite database of Prefect's server in `folder` if it is damaged; None, or the
    sentence that says so. Call it where a server does not start.
    """
    database = folder / "prefect.db"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as con:
            if con.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return None
    except sqlite3.OperationalError:  # it is not there, or another program holds it
        return None
    except sqlite3.DatabaseError:  # not a database, or a page of it is unreadable
        pass

    aside = database.with_name(f"prefect-damaged-{datetime.now():%Y%m%d-%H%M%S}.db")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{suffix}").rename(f"{aside}{suffix}")
    return (
        f"Prefect's database {database} is damaged and is now {aside.name}; a new one takes its "
        "place. The history of earlier runs in the Prefect UI is in it; results are not."
    )


def refuse_unusable_server() -> None:
    """Raise BadInput, with the remedy, where the configured server cannot be used."""
    for finding in check_prefect_server():
        if finding.level == "error":
            raise BadInput(
                f"The Prefect server cannot be used: {finding.detail}; {finding.remedy}."
            )


def check_prefect_server() -> list[Finding]:
    """Whether the server that PREFECT_API_URL or Prefect's other settings name can be used."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        detail = "no server is set (PREFECT_API_URL): a sweep starts its own while it runs"
        return [Finding("Prefect", "ok", detail)]

    try:
        version = server_version(url)
    except NoAnswer as error:
        if error.status is None:
            remedy = "start it with `triage up`, or unset PREFECT_API_URL to do without"
            remedy += _privacy_of_a_mac(error)
            return [Finding("Prefect", "error", f"no server answers at {url} ({error})", remedy)]
        detail = f"{url} does not give its version ({error})"
        remedy = "check its address and your credentials, if sweeps do not appear there"
        return [Finding("Prefect", "warning", detail, remedy)]

    own_version = metadata.version("prefect")
    if version == own_version:
        return [Finding("Prefect", "ok", f"server {version} at {url}")]

    detail = f"the server at {url} is {version}, this project's is {own_version}"
    remedy = (
        "stop that server and start one of this version with `triage up`, "
        f"or use Prefect {version} here"
    )
    return [Finding("Prefect", "error", detail, remedy)]


class TemporaryServer:
    """Prefect's server while a sweep runs.

    Prefect would start one itself, after four seconds of imports that only a server needs, and a
    killed sweep would leave it running. This one exits with its sweep, which starts another one if
    it ends. The sweep holds the socket on which the server listens: while no server runs, requests
    wait there, and the port stays the same.

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
                if damage := set_damaged_database_aside(_prefect_home()):
                    self._say(damage)
                elif starts == 0:
                    return False
                else:
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
    settings_files = (_prefect_home() / "profiles.toml", Path(".env"), Path("prefect.toml"))
    project = Path("pyproject.toml")
    return (
        any(name in os.environ for name in NAMES_A_SERVER)
        or any(path.exists() for path in settings_files)
        or (project.is_file() and b"[tool.prefect" in project.read_bytes())
        or "prefect.context" in sys.modules  # imported already: a program may have set one
    )


def _prefect_home() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


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
