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
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.runtime.children import end_process
from tasks.runtime.errors import BadInput, TriageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"  # user:password, which a server asks for
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"  # of the pages that a server answers
SECONDS = 3.0  # a server that takes longer to give its version does not answer
REQUEST_SECONDS = 20.0  # a server that is busy with runs may take longer than that
RETRIES = 5  # of a request: a server that has just started, or is busy with runs, refuses some
CONNECT_ATTEMPTS = 4  # the client's, of which each may take its part of the time
BOUND_PROCESS = Path(__file__).with_name("bound_process.py")
BACKLOG = 128  # requests that wait while no server runs
LIKE_PREFECTS_OWN = {
    ORIGINS: f"http://{HOST}",  # no page of a browser
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",  # a fifth of its start, and no sweep uses one
    "PREFECT__SERVER_EPHEMERAL": "1",
}
NAMES_A_SERVER = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
POLL_SECONDS = 1.0  # after which it is seen at the latest that the server has ended
ATTEMPTS = 2  # at starting a server that answers before it ends
NOT_FOUND = 404  # the version of Prefect Cloud, which gives none
LOST = (
    "Prefect's server ended and could not be started again. Finished work is kept; "
    "run the same command again to continue."
)
Say = Callable[[str], None]


class NoAnswer(BadInput):
    """A Prefect server does not answer, or not as one.

    `status`: the HTTP status, where a web server answered.
    """

    def __init__(self, api: str, reason: str, status: int | None = None) -> None:
        self.status = status
        if status in (401, 403):
            super().__init__(
                f"The Prefect server at {api} refuses the request (status {status}); set "
                "PREFECT_API_AUTH_STRING to the user and password with which it was started."
            )
            return

        super().__init__(
            f"No Prefect server answers at {api} ({reason}); start one with `triage up`, correct "
            "the address, or unset PREFECT_API_URL."
        )


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
    api: str, seconds: float = REQUEST_SECONDS, retries: int = 0
) -> Iterator[SyncPrefectClient]:
    """Prefect's client of the server at `api`, with credentials and certificates of the settings.

    Its requests fail after `seconds` and are repeated `retries` times, which may take a minute.
    Raises NoAnswer.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    timeout = httpx.Timeout(seconds, connect=seconds / CONNECT_ATTEMPTS)
    try:
        with (
            temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: retries}),
            get_client(sync_client=True, httpx_settings={"timeout": timeout}) as client,
        ):
            yield client
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise NoAnswer(api, f"status {status}", status) from error
    # A ValueError is an answer that is no JSON, or not one of Prefect's.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoAnswer(api, str(error) or type(error).__name__) from error


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


def server_version(api: str) -> str:
    """Version of the Prefect server at `api`. Raises NoAnswer, also after SECONDS."""
    with prefect_client(api, SECONDS) as client:
        return str(client.api_version())


def refuse_unusable_server(api: str) -> None:
    """Raise BadInput where the server at `api` does not answer, or is of another version."""
    own_version = metadata.version("prefect")
    try:
        version = server_version(api)
    except NoAnswer as error:
        if error.status == NOT_FOUND:
            return
        raise

    if version != own_version:
        raise BadInput(
            f"The Prefect server at {api} is of version {version}, and this project uses "
            f"{own_version}; stop that server and start one of this version with `triage up`."
        )


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


class Server:
    """Prefect's server, which exits with the process that started it, and is replaced if it ends.

    This process holds the socket on which the server listens: while no server runs, requests wait
    there, and the port stays the same.

    `say` receives a sentence when the server ended and when its successor runs; `on_loss` is called
    if none could be started any more. `port`: 0 is one that is free; `log`: a file for what it
    prints. Raises BadInput for a port that is taken.
    """

    def __init__(
        self,
        environment: dict[str, str],
        say: Say,
        on_loss: Callable[[], None],
        host: str = HOST,
        port: int = 0,
        log: Path | None = None,
    ) -> None:
        taken = BadInput(
            f"Port {port} is taken by another program, such as another Prefect server; stop "
            "it, or choose another port with --port."
        )
        # A Mac would bind beside it, to another address.
        if port and is_open(port):
            raise taken
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
        except OSError as error:
            raise taken from error
        self._listener.listen(BACKLOG)
        self.port = int(self._listener.getsockname()[1])
        self._environment = environment | {"PREFECT__SERVER_FINAL": "1"}  # as Prefect starts it
        self._say = say
        self._lost = on_loss
        self._log = log
        self._answered = False
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()  # no server is started while the last one is being ended

    def start(self) -> None:
        """Start a process; it answers seconds later."""
        with self._lock:
            if not self._ending.is_set():
                self._answered = False
                descriptor = self._listener.fileno()
                arguments = ["uvicorn", "prefect.server.api.server:create_app", str(descriptor)]
                self._process = start_bound(arguments, self._environment, self._log, (descriptor,))

    def wait(self, seconds: float) -> None:
        """Return once it answers; from then on another one is started whenever it ends.

        Raises TriageError if it ends before, twice, or takes longer than `seconds`.
        """
        if not self._answers(seconds, ATTEMPTS - 1):
            log = f" Its log is {self._log}." if self._log else ""
            raise TriageError(
                f"Prefect's server did not start ({self._state()}); is the machine busy? Run the "
                f"same command again.{log}"
            )

        threading.Thread(target=self._keep, args=(seconds,), daemon=True).start()

    def _answers(self, seconds: float, starts: int) -> bool:
        """Whether a server answers within so long; one that has ended is replaced `starts` times."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._ending.is_set():
            if not self._runs():
                if damage := set_damaged_database_aside(prefect_home(self._environment)):
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
        return "it does not answer" if code is None else f"it ended with code {code}"

    def _keep(self, seconds: float) -> None:
        """Start another server whenever this one ends, until `end`."""
        while not self._ending.wait(POLL_SECONDS):
            if self._runs():
                continue
            self._say(f"Prefect's server is gone ({self._state()}); starting another ...")
            if self._answers(seconds, ATTEMPTS):
                self._say("Prefect's server runs again.")
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


def start_bound(
    arguments: list[str],
    environment: dict[str, str],
    log: Path | None = None,
    descriptors: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a server or a command of Prefect, whose process ends with this one (bound_process.py).

    `log`: the file to which it writes; `descriptors`: what it inherits.
    """
    with contextlib.ExitStack() as stack:
        output = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(log.open("ab"))
        return subprocess.Popen(
            # -P: never the current folder, which may hold any module.
            [sys.executable, "-P", str(BOUND_PROCESS), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            pass_fds=descriptors,
            # Ctrl-C goes to all in the terminal's foreground. The command, which ends this
            # process, must still reach it.
            start_new_session=True,
        )


def start_temporary_server(say: Say, on_loss: Callable[[], None]) -> Server | None:
    """Start a server that lives until this process exits; see Server for the arguments.

    None if a server is configured, which is checked instead. Returns at once: starting takes
    seconds, in which the caller can import what it needs, Prefect first of all. Prefect would
    start one itself, later, and a killed sweep would leave it running. Raises BadInput where the
    configured server cannot be used.
    """
    if _may_be_configured():
        from prefect.settings import PREFECT_API_URL

        if api := PREFECT_API_URL.value():
            refuse_unusable_server(api)
            return None

    # The password is that of `triage up`; this server's sweep sends none.
    inherited = {name: value for name, value in os.environ.items() if name != SERVER_AUTH}
    server = Server(inherited | LIKE_PREFECTS_OWN, say, on_loss)
    atexit.register(server.end)  # runs after Prefect's own, registered later
    server.start()
    return server


def used(server: Server | None) -> contextlib.AbstractContextManager[object]:
    """Wait until the server answers; the context to run flows in."""
    if server is None:
        return contextlib.nullcontext()

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
    """Whether any place that Prefect reads its settings from could name a server: importing Prefect
    to ask it takes seconds, in which the temporary server starts.
    """
    settings_files = (
        prefect_home(os.environ) / "profiles.toml",
        Path(".env"),
        Path("prefect.toml"),
    )
    project = Path("pyproject.toml")
    return (
        any(name in os.environ for name in NAMES_A_SERVER)
        or any(path.exists() for path in settings_files)
        or (project.is_file() and b"[tool.prefect" in project.read_bytes())
        or "prefect.context" in sys.modules  # imported already: a program may have set one
    )


def prefect_home(environment: Mapping[str, str]) -> Path:
    """The folder of Prefect's settings and database."""
    return Path(environment.get("PREFECT_HOME") or "~/.prefect").expanduser()
