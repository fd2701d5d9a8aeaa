"""`triage up`: Prefect's server with its UI, the work pool, the deployments and the workers.

All of it runs on this machine, in the foreground, until Ctrl-C, SIGTERM or a closed terminal, then
stops what it started. A second start is harmless, and a start ends what a killed one left. A server
that ends is started again on the same port, with the same database; workers and flow runs repeat
their requests meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata

from deployments.awake import kept_awake
from deployments.interruptions import ignore_interruptions, interrupted_by_signals
from deployments.lost_runs import end_runs
from deployments.notifications import check_address, notify_people
from deployments.prefect_api import (
    HOST,
    ORIGINS,
    SERVER_AUTH,
    NoAnswer,
    api_url,
    is_open,
    server_version,
)
from deployments.register import register
from deployments.started_processes import end_leftovers, start
from deployments.workers import QUEUES, Worker, worker_environment
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home
from tasks.runtime.locks import locked

EVERYWHERE = "0.0.0.0"
# Else a lease is forgotten with the server's process, and what it held stays taken for good.
KEEPS_LEASES = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"
}
START_SECONDS = 300.0  # the first start makes the database: minutes on a busy machine
POLL_SECONDS = 1.0  # after which it is seen that the server or a worker has ended
SERVER_STARTS = 2  # attempts at starting a server in place of one that ended
DEPLOYMENTS = ("sweep/local", "experiment/local", "compare/local", "nightly/local")
RESULTS = ("comparison", "leaderboard")  # keys of the artifacts of every sweep
Say = Callable[[str], None]


def up(port: int, say: Say, notify: str | None = None, host: str = HOST) -> None:
    """Start everything and wait. `notify`: an Apprise address that gets a message where it matters.
    `host`: HOST, or EVERYWHERE for the machines of a fleet.

    Raises BadInput where the port, the server that answers there, or the address cannot be used.
    """
    refuse_open_server(host)
    if notify is not None:
        check_address(notify)

    try:
        with interrupted_by_signals(), locked(home() / "server"), kept_awake():
            _run(port, say, notify, host)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            say("Stopped. What was running goes on at the next `triage up`.")
    except Locked:
        version = version_on(port)
        if version is None:
            raise BadInput(
                f"`triage up` is running already, but not on port {port}; "
                "stop it first, or use its port."
            ) from None
        say(f"Already running: http://{HOST}:{port} (Prefect {version}).")


def version_on(port: int) -> str | None:
    """Version of the Prefect server that answers on a port of this machine, or None."""
    if not is_open(port):
        return None
    try:
        return server_version(api_url(port))
    except NoAnswer:
        return None


def refuse_open_server(host: str) -> None:
    """Raise BadInput for an address that is neither HOST nor EVERYWHERE, and for a server that
    anyone in the network could use.
    """
    if host not in (HOST, EVERYWHERE):
        raise BadInput(
            f"--host {host} is not served; give {HOST} for this machine alone, or {EVERYWHERE} for "
            "all machines that reach it."
        )
    if host == EVERYWHERE and not os.environ.get(SERVER_AUTH):
        raise BadInput(
            f"--host {EVERYWHERE} lets everyone in this network run code here; set {SERVER_AUTH} "
            "to a user and a password, e.g. fleet:SECRET, and PREFECT_API_AUTH_STRING to the same "
            "on every machine."
        )


def _run(port: int, say: Say, notify: str | None, host: str) -> None:
    environment = _environment(port, host)
    with contextlib.ExitStack() as stack:
        try:
            _end_leftovers(port, say)
            server = stack.enter_context(_Server(port, environment, say, host))
            server.provide()

            with _answering(port):
                register(api_url(port), environment)
                if notify is not None:
                    notify_people(api_url(port), notify)

            say(f"Prefect UI: http://{HOST}:{port}  (deployments {', '.join(DEPLOYMENTS)})")
            for key in RESULTS:
                say(f"Results: http://{HOST}:{port}/artifacts/key/{key}")

            say(f"For other terminals: export PREFECT_API_URL={api_url(port)}")
            if host == EVERYWHERE:
                say(f"For other machines: triage join http://{socket.gethostname()}:{port}")

            say("Stop with Ctrl-C.")
            _keep_working(server, environment, say)
        except (KeyboardInterrupt, LostServer):
            ignore_interruptions()
            # Includes runs of a worker that ended and was not started again yet.
            end_runs(api_url(port), home())
            raise


def _end_leftovers(port: int, say: Say) -> None:
    """End what a killed `triage up` left.

    Its worker would share the pool, and its server would stay for good.
    """
    if ended_pids := end_leftovers(home()):
        end_runs(api_url(port), home())
        say(f"Ended processes that an earlier `triage up` left: {', '.join(map(str, ended_pids))}.")


class LostServer(BadInput):
    """The server ended, and none could be started in its place."""


class _Server:
    """The Prefect server of a port: one that was there before, or one of ours, which ends with the
    context.
    """

    def __init__(self, port: int, environment: dict[str, str], say: Say, host: str = HOST) -> None:
        self.port = port
        self._host = host
        self._environment = environment
        self._say = say
        self._stack = contextlib.ExitStack()  # of the process, where it is ours
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def provide(self) -> None:
        """Return once a server of our version answers on the port, an existing or a new one."""
        if _usable_server(self.port):
            if self._host == EVERYWHERE:
                raise BadInput(
                    f"Port {self.port} has a Prefect server already, which other machines may not "
                    "reach, or reach without a password; stop it, or choose another port with "
                    "--port."
                )
            self._say(
                f"A Prefect server answers on port {self.port} already and is used; "
                "it stays when this stops."
            )
            return

        arguments = ["server", "start", "--host", self._host, "--port", str(self.port)]
        self._process = start(self._stack, arguments, self._environment, "server")
        _wait_for(self.port, self._process)

    def keep(self) -> None:
        """Start another server if this one has ended; raises LostServer if none can be started."""
        if self._runs():
            return

        self._say(f"The Prefect server on port {self.port} has ended; starting another ...")
        if not any(self._restarted() for _ in range(SERVER_STARTS)):
            raise LostServer(
                f"The Prefect server on port {self.port} ended and could not be started again; "
                f"its log is in {home() / 'logs'}. Nothing is lost: run `triage up` again."
            )

        self._say(f"The Prefect server on port {self.port} runs again.")

    def _runs(self) -> bool:
        return is_open(self.port) if self._process is None else self._process.poll() is None

    def _restarted(self) -> bool:
        self._stack.close()
        self._process = None
        try:
            self.provide()
        except BadInput:  # said by the caller, after the last attempt
            return False
        return True


def _usable_server(port: int) -> bool:
    """True if a Prefect server of our version answers on the port, False if the port is free."""
    version = version_on(port)
    own_version = metadata.version("prefect")
    if version is not None and version != own_version:
        raise BadInput(
            f"Port {port} has a Prefect server of version {version}, "
            f"and this project uses {own_version}; "
            "stop that server, or choose another port with --port."
        )
    if version is None and is_open(port):
        raise BadInput(f"Port {port} is taken by another program; choose another with --port.")

    return version is not None


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while version_on(port) is None:
        if server.poll() is not None or time.monotonic() > deadline:
            log = home() / "logs" / "prefect-server.log"
            raise BadInput(f"The Prefect server did not start; its log is {log}.")
        time.sleep(0.5)


def _keep_working(server: _Server, environment: dict[str, str], say: Say) -> None:
    """Keep the server and a worker for each queue running, until interrupted.

    Raises BadInput where a worker ends again and again, and LostServer.
    """
    workers = [Worker(queue, api_url(server.port), environment, say) for queue in QUEUES]
    try:
        while True:
            server.keep()
            for worker in workers:
                with _answering(server.port):
                    worker.keep()
            time.sleep(POLL_SECONDS)
    except (KeyboardInterrupt, LostServer):
        ignore_interruptions()
        for worker in workers:
            worker.kill()
        raise
    finally:
        for worker in workers:
            worker.close()


@contextlib.contextmanager
def _answering(port: int) -> Iterator[None]:
    """Turn NoAnswer into a sentence with the port and the log of the server."""
    try:
        yield
    except NoAnswer as error:
        problem = "no longer answers" if error.status is None else "answers with an error"
        raise BadInput(
            f"The Prefect server on port {port} {problem} ({error}); "
            f"its log is in {home() / 'logs'}. Nothing is lost: run `triage up` again."
        ) from error


def _environment(port: int, host: str = HOST) -> dict[str, str]:
    """The environment of the server, the worker and the flow runs.

    The server answers pages of its own alone: Prefect's default lets any page that a browser of
    this machine shows start runs, which are commands.
    """
    names = [HOST, "localhost"]
    environment = {
        **KEEPS_LEASES,
        **worker_environment(api_url(port)),
        "PREFECT_UI_API_URL": api_url(port),
    }
    if host == EVERYWHERE:  # browsers of other machines
        names.append(socket.gethostname())
        environment["PREFECT_UI_API_URL"] = f"http://{names[-1]}:{port}/api"

    environment.setdefault(ORIGINS, ",".join(f"http://{name}:{port}" for name in names))
    return environment
