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
import threading

from deployments.interruptions import at_next_interruption, interrupted_by_signals, kept_awake
from deployments.notify import check_address, notify_people, run_lost_runs_again
from deployments.server import (
    HOST,
    ORIGINS,
    RETRIES,
    SERVER_AUTH,
    NoAnswer,
    Say,
    Server,
    api_url,
    prefect_client,
    server_version,
)
from deployments.workers import QUEUES, Worker, definitions, give_back_runs, register
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home
from tasks.runtime.locks import ACCELERATOR, locked

EVERYWHERE = "0.0.0.0"
START_SECONDS = 300.0  # the first start makes the database: minutes on a busy machine
POLL_SECONDS = 1.0  # after which it is seen that a worker has ended


def up(port: int, say: Say, notify: str | None = None, host: str = HOST) -> None:
    """Start everything and wait. `notify`: an Apprise address that gets a message where it matters.
    `host`: HOST, or EVERYWHERE for the machines of other work pools.

    Raises BadInput where the port, the server that answers there, or an address cannot be used.
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
    if notify is not None:
        check_address(notify)

    try:
        with interrupted_by_signals(), locked(home() / "server"), kept_awake():
            _run(port, say, notify, host)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            say("Stopped. What was running goes on at the next `triage up`.")
    except Locked:
        try:
            server_version(api_url(port))
        except NoAnswer:
            raise BadInput(
                f"`triage up` is running already, but not on port {port}; "
                "stop it first, or use its port."
            ) from None
        say(f"Already running: http://{HOST}:{port}.")


def _run(port: int, say: Say, notify: str | None, host: str) -> None:
    api = api_url(port)
    environment = server_environment(port, host)
    log = home() / "logs" / "prefect-server.log"
    lost = threading.Event()
    server = Server(environment, say, lost.set, host, port, log)
    try:
        server.start()
        server.wait(START_SECONDS)
        give_back_runs(api)  # of a start that was killed
        register(api)
        with prefect_client(api, retries=RETRIES) as client:
            run_lost_runs_again(client)
            if notify is not None:
                notify_people(client, notify)

        names = ", ".join(definition["name"] for definition in definitions())
        say(f"Prefect UI: http://{HOST}:{port}  (deployments {names})")
        say(f"For other terminals: export PREFECT_API_URL={api}")
        if host == EVERYWHERE:
            say(
                f"On other machines: export PREFECT_API_URL=http://{socket.gethostname()}:{port}/api"
            )

        say("Stop with Ctrl-C.")
        keep_working(api, [Worker(queue, environment, say) for queue in QUEUES], lost)
        raise BadInput(
            f"The Prefect server on port {port} ended and could not be started again; its log is "
            f"{log}. Nothing is lost: run `triage up` again."
        )
    finally:
        server.end()


def keep_working(api: str, workers: list[Worker], lost: threading.Event) -> None:
    """Keep the workers running until interrupted, or until `lost`; then no worker and no run is
    left.

    Raises BadInput where a worker ends again and again.
    """
    try:
        while not lost.is_set():
            for worker in workers:
                worker.keep()
            lost.wait(POLL_SECONDS)
    finally:
        at_next_interruption(lambda: None)
        # The workers first, or they would take again what is given back.
        for worker in workers:
            worker.kill()
        with contextlib.suppress(NoAnswer):  # then its heartbeats are missed, once it answers
            give_back_runs(api)


def server_environment(port: int, host: str = HOST) -> dict[str, str]:
    """The environment of the server, the workers and the flow runs, which report to the server.

    The server answers pages of its own alone: Prefect's default lets any page that a browser of
    this machine shows start runs, which are commands.
    """
    # Browsers of other machines know this one by its name.
    ui_host = socket.gethostname() if host == EVERYWHERE else HOST
    pages = dict.fromkeys((HOST, "localhost", ui_host))
    # Else a lease is forgotten with the server's process, and what it held stays taken for good.
    leases = "prefect.server.concurrency.lease_storage.filesystem"
    return {
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": leases,
        ORIGINS: ",".join(f"http://{name}:{port}" for name in pages),
        # A database of this home's own, apart from whatever else uses Prefect here.
        "PREFECT_HOME": str(home() / "prefect"),
        # A run waits up to so long before it starts; Prefect's default is 10 s.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # All workers of this machine take turns at its accelerator.
        ACCELERATOR: "0",
        **{
            name: value
            for name, value in os.environ.items()
            if value or name not in ("PREFECT_HOME", ACCELERATOR)
        },
        "PREFECT_API_URL": api_url(port),
        "PREFECT_UI_API_URL": f"http://{ui_host}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "TRIAGE_HOME": str(home()),
    }
