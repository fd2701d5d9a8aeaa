"""Starts what the Prefect UI needs on this machine: server, work pool, worker and deployments, all on 127.0.0.1.

Runs in the foreground until Ctrl-C, SIGTERM or a closed terminal, then stops what it started. Starting it twice is
harmless, and a start ends what a killed one left. A worker that dies is started again; flow runs go on without it, and
those that were lost with it are queued again.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata

from deployments import prefect_api
from deployments.lost_runs import end_runs, queue_lost_runs
from deployments.register import POOL, set_up
from deployments.started_processes import end_leftovers, kill_group, start
from deployments.worker_names import worker_name
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.store import home, locked

HOST = "127.0.0.1"
START_SECONDS = 90.0
PAUSE = 1.0  # seconds before a worker that ended is started again
EARLY, EARLY_ENDS = (
    60.0,
    5,
)  # so many workers in a row that end within so many seconds: no further one would live
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Say = Callable[[str], None]


def api_url(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def up(port: int, say: Say) -> None:
    """Start everything and wait. Raises BadInput where the port or the server there cannot be used."""
    try:
        with interrupted_by_signals(), locked(home() / "server"):
            _run(port, say)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            say("Stopped. What was running goes on at the next `triage up`.")
    except Locked:
        version = server_version(port)
        if version is None:
            raise BadInput(
                f"`triage up` is running already, but not on port {port}; stop it first, or use its port."
            ) from None
        say(f"Already running: http://{HOST}:{port} (Prefect {version}).")


def server_version(port: int) -> str | None:
    """Version of the Prefect server that answers on a port of this machine, or None."""
    try:
        return prefect_api.server_version(api_url(port))
    except prefect_api.NoVersion:
        return None


def _run(port: int, say: Say) -> None:
    environment = _environment(port)
    with contextlib.ExitStack() as stack:
        try:
            _tidy_up(port, say)
            if _usable_server(port):
                say(
                    f"A Prefect server answers on port {port} already and is used; it stays when this stops."
                )
            else:
                started = start(
                    stack,
                    ["server", "start", "--host", HOST, "--port", str(port)],
                    environment,
                    "server",
                )
                _wait_for(port, started)
            with _answering(port):
                set_up(api_url(port), environment)
            say(
                f"Prefect UI: http://{HOST}:{port}  (deployments sweep/local, experiment/local, compare/local)"
            )
            say(f"For other terminals: export PREFECT_API_URL={api_url(port)}")
            say("Stop with Ctrl-C.")
            _keep_working(port, environment, say)
        except KeyboardInterrupt:
            _ignore_interruptions()
            end_runs(
                api_url(port), home()
            )  # also those of a worker that ended and was not started again yet
            raise


def _tidy_up(port: int, say: Say) -> None:
    """End what a killed `triage up` left: a second worker would share the pool, and its server would stay for good."""
    if left := end_leftovers(home()):
        end_runs(api_url(port), home())
        say(
            f"Ended what an earlier `triage up` left behind: processes {', '.join(map(str, left))}."
        )


def _keep_working(port: int, environment: dict[str, str], say: Say) -> None:
    """Run a worker, one flow run at a time, and start it again whenever it ends, until interrupted.

    Raises BadInput with where to read why, if it keeps ending at once.
    """
    command = ["worker", "start", "--pool", POOL, "--limit", "1", "--name", worker_name()]
    early_ends = 0
    while early_ends < EARLY_ENDS:
        for name in _lost_runs(port):
            say(f"Queued again, since its process is gone: {name}.")
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            worker = start(stack, command, environment, "worker")
            say(f"Worker started (process {worker.pid}).")
            try:
                worker.wait()
            except KeyboardInterrupt:
                # Killed rather than asked: a worker that is asked waits for its run, for hours if need be. The run
                # stays Running on the server, and the next start finds its process gone and queues it again.
                _ignore_interruptions()
                kill_group(worker.pid)
                raise
        early_ends = early_ends + 1 if time.monotonic() - started < EARLY else 0
        say("The worker ended.")
        time.sleep(PAUSE)
    raise BadInput(
        f"The Prefect worker ended within {EARLY:.0f} s of its start {EARLY_ENDS} times in a row; what it said is in "
        f"{home() / 'logs' / 'prefect-worker.log'}: mend that, then run `triage up` again."
    )


def _lost_runs(port: int) -> list[str]:
    with _answering(port):
        return queue_lost_runs(api_url(port), POOL)


@contextlib.contextmanager
def _answering(port: int) -> Iterator[None]:
    """Says in a sentence that the server does not answer to what the block asks."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise BadInput(
            f"The Prefect server on port {port} no longer answers ({type(error).__name__}); its log is in "
            f"{home() / 'logs'}. Nothing is lost: run `triage up` again."
        ) from error


def _usable_server(port: int) -> bool:
    """True if a Prefect server of our version answers on the port, False if the port is free."""
    version = server_version(port)
    ours = metadata.version("prefect")
    if version is not None and version != ours:
        raise BadInput(
            f"Port {port} has a Prefect server of version {version}, and this project uses {ours}; "
            "stop that server, or choose another port with --port."
        )
    if version is None and _port_taken(port):
        raise BadInput(f"Port {port} is taken by another program; choose another with --port.")
    return version is not None


def _port_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((HOST, port)) == 0


def _environment(port: int) -> dict[str, str]:
    return {
        **os.environ,
        "PREFECT_API_URL": api_url(port),
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(home() / "prefect"),
        "PREFECT_UI_API_URL": api_url(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "TRIAGE_HOME": str(home()),
    }


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP where it is not ignored (nohup), do what Ctrl-C does while the block runs, so that what
    was started is stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGTERM or before[number] != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_interruptions() -> None:
    """A second Ctrl-C does not cut short what the first one asked for. `interrupted_by_signals` takes it back."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)


def _wait_for(port: int, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server_version(port) is None:
        if started.poll() is not None or time.monotonic() > deadline:
            raise BadInput(
                f"The Prefect server did not start; its log is {home() / 'logs' / 'prefect-server.log'}."
            )
        time.sleep(0.5)
