"""`triage up`: Prefect's server with its UI, the work pool, the deployments and the workers.

All of it runs on this machine, in the foreground, until Ctrl-C, SIGTERM or a closed terminal, then
stops what it started. A second start is harmless, and what a killed start began ends with it. A
server that ends is started again on the same port, with the same database; workers and flow runs
repeat their requests meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path

from deployments.interruptions import at_next_interruption, interrupted_by_signals, kept_awake
from deployments.notify import check_address, notify_people, run_lost_runs_again
from deployments.server import (
    HOST,
    ORIGINS,
    SERVER_AUTH,
    NoAnswer,
    Say,
    answering,
    api_url,
    is_open,
    prefect_client,
    server_version,
    set_damaged_database_aside,
)
from deployments.workers import (
    QUEUES,
    Worker,
    definitions,
    give_back_runs,
    register,
    start_bound,
)
from tasks.runtime.children import end_process
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home
from tasks.runtime.locks import ACCELERATOR, locked

EVERYWHERE = "0.0.0.0"
# Else a lease is forgotten with the server's process, and what it held stays taken for good.
KEEPS_LEASES = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"
}
START_SECONDS = 300.0  # the first start makes the database: minutes on a busy machine
POLL_SECONDS = 1.0  # after which it is seen that the server or a worker has ended
SERVER_STARTS = 2  # attempts at starting a server in place of one that ended
RETRIES = 5  # of a request: a server that has just started is busy
RESULTS = ["comparison", "leaderboard"]  # keys of the artifacts of every sweep


def up(port: int, say: Say, notify: str | None = None, host: str = HOST) -> None:
    """Start everything and wait. `notify`: an Apprise address that gets a message where it matters.
    `host`: HOST, or EVERYWHERE for the machines of other work pools.

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
    from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

    api = api_url(port)
    with _Server(port, say, host) as server:
        server.provide()
        with answering(api):
            give_back_runs(api)  # of a start that was killed
            register(api)
            with prefect_client(api, retries=RETRIES) as client:
                run_lost_runs_again(client)
                if notify is not None:
                    notify_people(client, notify)
                wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=RESULTS))
                published = client.read_latest_artifacts(artifact_filter=wanted)

        names = ", ".join(definition["name"] for definition in definitions())
        say(f"Prefect UI: http://{HOST}:{port}  (deployments {names})")
        # The page of an artifact that does not exist yet would be blank.
        for artifact in published:
            say(f"Results: http://{HOST}:{port}/artifacts/key/{artifact.key}")

        say(f"For other terminals: export PREFECT_API_URL={api}")
        if host == EVERYWHERE:
            say(
                f"On other machines: export PREFECT_API_URL=http://{socket.gethostname()}:{port}/api"
            )

        say("Stop with Ctrl-C.")
        keep_working(server, [Worker(queue, server.environment, say) for queue in QUEUES])


def keep_working(server: _Server, workers: list[Worker]) -> None:
    """Keep the server and the workers running, until interrupted; then no worker and no run is
    left.

    Raises BadInput where a worker ends again and again, or the server cannot be started again.
    """
    try:
        while True:
            server.keep()
            for worker in workers:
                worker.keep()
            time.sleep(POLL_SECONDS)
    finally:
        at_next_interruption(lambda: None)
        # The workers first, or they would take again what is given back.
        for worker in workers:
            worker.kill()
        with contextlib.suppress(NoAnswer):  # then its heartbeats are missed, once it answers
            give_back_runs(api_url(server.port))


class _Server(contextlib.AbstractContextManager["_Server"]):
    """The Prefect server of a port: one that was there before, or one of ours, which ends with the
    context.
    """

    def __init__(self, port: int, say: Say, host: str = HOST) -> None:
        self.port = port
        self.environment = _environment(port, host)
        self._host = host
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None  # where it is ours

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            end_process(self._process)

    def provide(self) -> None:
        """Return once a server of our version answers on the port, an existing or a new one."""
        version = version_on(self.port)
        own_version = metadata.version("prefect")
        if version is None and is_open(self.port):
            raise BadInput(
                f"Port {self.port} is taken by another program; choose another with --port."
            )
        if version not in (None, own_version):
            raise BadInput(
                f"Port {self.port} has a Prefect server of version {version}, and this project "
                f"uses {own_version}; stop that server, or choose another port with --port."
            )
        if version is not None:
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
        self._process = start_bound(arguments, self.environment, "server")
        deadline = time.monotonic() + START_SECONDS
        while version_on(self.port) is None:
            has_ended = self._process.poll() is not None
            folder = Path(self.environment["PREFECT_HOME"])
            if has_ended and (damage := set_damaged_database_aside(folder)):
                self._say(damage)
                self._process = start_bound(arguments, self.environment, "server")
            elif has_ended or time.monotonic() > deadline:
                log = home() / "logs" / "prefect-server.log"
                raise BadInput(f"The Prefect server did not start; its log is {log}.")
            time.sleep(0.5)

    def keep(self) -> None:
        """Start another server if this one has ended; raises BadInput if none can be started."""
        if is_open(self.port) if self._process is None else self._process.poll() is None:
            return

        self._say(f"The Prefect server on port {self.port} has ended; starting another ...")
        for _ in range(SERVER_STARTS):
            self.__exit__()
            self._process = None
            with contextlib.suppress(BadInput):  # said below, after the last attempt
                self.provide()
                self._say(f"The Prefect server on port {self.port} runs again.")
                return

        raise BadInput(
            f"The Prefect server on port {self.port} ended and could not be started again; "
            f"its log is in {home() / 'logs'}. Nothing is lost: run `triage up` again."
        )


def _environment(port: int, host: str = HOST) -> dict[str, str]:
    """The environment of the server, the workers and the flow runs, which report to the server.

    The server answers pages of its own alone: Prefect's default lets any page that a browser of
    this machine shows start runs, which are commands.
    """
    names = [HOST, "localhost"]
    environment = {
        **KEEPS_LEASES,
        **os.environ,
        "PREFECT_API_URL": api_url(port),
        "PREFECT_UI_API_URL": api_url(port),
        # A database of this home's own, apart from whatever else uses Prefect here.
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(home() / "prefect"),
        # A run waits up to so long before it starts; Prefect's default is 10 s.
        "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "2"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "TRIAGE_HOME": str(home()),
        # All workers of this machine take turns at its accelerator.
        ACCELERATOR: os.environ.get(ACCELERATOR) or "0",
    }
    if host == EVERYWHERE:  # browsers of other machines
        names.append(socket.gethostname())
        environment["PREFECT_UI_API_URL"] = f"http://{names[-1]}:{port}/api"

    environment.setdefault(ORIGINS, ",".join(f"http://{name}:{port}" for name in names))
    return environment
