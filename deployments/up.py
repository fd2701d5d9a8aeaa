"""`triage up`: Prefect's server with its UI, the work pool, the deployments and a worker.

All of it runs on this machine, in the foreground, until Ctrl-C, SIGTERM or a closed terminal, then
stops what it started. A second start is harmless, and a start ends what a killed one left. A worker
that ends is started again; flow runs go on without it, and those that were lost with it are queued
again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata

from deployments.interruptions import ignore_interruptions, interrupted_by_signals
from deployments.lost_runs import end_runs, queue_lost_runs
from deployments.prefect_api import HOST, NoAnswer, api_url, is_open, server_version
from deployments.register import POOL, register
from deployments.started_processes import end_leftovers, kill_group, start
from deployments.worker_names import worker_name
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home
from tasks.runtime.store import locked

START_SECONDS = 90.0
PAUSE = 1.0  # seconds before a worker that ended is started again
EARLY_SECONDS = 60.0  # a worker that ends sooner has something wrong with it ...
DEPLOYMENTS = ("sweep/local", "experiment/local", "compare/local")
EARLY_ENDS = 5  # ... and after so many of them in a row, no further one would live
Say = Callable[[str], None]


def up(port: int, say: Say) -> None:
    """Start everything and wait.

    Raises BadInput where the port, or the server that answers there, cannot be used.
    """
    try:
        with interrupted_by_signals(), locked(home() / "server"):
            _run(port, say)
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


def _run(port: int, say: Say) -> None:
    environment = _environment(port)
    with contextlib.ExitStack() as stack:
        try:
            _end_leftovers(port, say)
            _provide_server(stack, port, environment, say)
            with _answering(port):
                register(api_url(port), environment)
            say(f"Prefect UI: http://{HOST}:{port}  (deployments {', '.join(DEPLOYMENTS)})")
            say(f"For other terminals: export PREFECT_API_URL={api_url(port)}")
            say("Stop with Ctrl-C.")
            _keep_working(port, environment, say)
        except KeyboardInterrupt:
            ignore_interruptions()
            # Includes runs of a worker that ended and was not started again yet.
            end_runs(api_url(port), home())
            raise


def _end_leftovers(port: int, say: Say) -> None:
    """End what a killed `triage up` left.

    Its worker would share the pool, and its server would stay for good.
    """
    if ended := end_leftovers(home()):
        end_runs(api_url(port), home())
        say(f"Ended processes that an earlier `triage up` left: {', '.join(map(str, ended))}.")


def _provide_server(
    stack: contextlib.ExitStack, port: int, environment: dict[str, str], say: Say
) -> None:
    """Return once a server of our version answers on the port, an existing or a new one."""
    if _usable_server(port):
        say(
            f"A Prefect server answers on port {port} already and is used; "
            "it stays when this stops."
        )
        return
    arguments = ["server", "start", "--host", HOST, "--port", str(port)]
    _wait_for(port, start(stack, arguments, environment, "server"))


def _usable_server(port: int) -> bool:
    """True if a Prefect server of our version answers on the port, False if the port is free."""
    version = version_on(port)
    expected = metadata.version("prefect")
    if version is not None and version != expected:
        raise BadInput(
            f"Port {port} has a Prefect server of version {version}, "
            f"and this project uses {expected}; "
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


def _keep_working(port: int, environment: dict[str, str], say: Say) -> None:
    """Run a worker, one flow run at a time, and start it again whenever it ends, until interrupted.

    Raises BadInput with the worker's log after EARLY_ENDS consecutive workers that end within
    EARLY_SECONDS.
    """
    early_ends = 0
    while early_ends < EARLY_ENDS:
        for name in _queue_lost_runs(port):
            say(f"Queued again, since its process is gone: {name}.")
        seconds = _run_worker(environment, say)
        early_ends = early_ends + 1 if seconds < EARLY_SECONDS else 0
        time.sleep(PAUSE)

    log = home() / "logs" / "prefect-worker.log"
    raise BadInput(
        f"{EARLY_ENDS} consecutive Prefect workers ended within {EARLY_SECONDS:.0f} s "
        f"of their start; their output is in {log}. Fix the problem and run `triage up` again."
    )


def _run_worker(environment: dict[str, str], say: Say) -> float:
    """Run a worker until it ends; returns how many seconds it ran."""
    command = ["worker", "start", "--pool", POOL, "--limit", "1", "--name", worker_name()]
    started_at = time.monotonic()
    with contextlib.ExitStack() as stack:
        worker = start(stack, command, environment, "worker")
        say(f"Worker started (process {worker.pid}).")
        try:
            worker.wait()
        except KeyboardInterrupt:
            # Killed rather than asked: a worker that is asked waits for its run, for hours if need
            # be. The run stays Running on the server, and the next start finds its process gone and
            # queues it again.
            ignore_interruptions()
            kill_group(worker.pid)
            raise
    say("The worker ended.")
    return time.monotonic() - started_at


def _queue_lost_runs(port: int) -> list[str]:
    with _answering(port):
        return queue_lost_runs(api_url(port), POOL)


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


def _environment(port: int) -> dict[str, str]:
    """The environment of the server, the worker and the flow runs."""
    return {
        **os.environ,
        "PREFECT_API_URL": api_url(port),
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(home() / "prefect"),
        "PREFECT_UI_API_URL": api_url(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "TRIAGE_HOME": str(home()),
    }
