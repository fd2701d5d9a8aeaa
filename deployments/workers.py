"""The workers of `triage up`: one for what trains, a run at a time, and one for light runs, which
answer while a sweep goes on; and what they serve, the work pool and the deployments of
`prefect.yaml`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import yaml  # type: ignore[import-untyped]

from deployments.prefect_api import prefect_client
from tasks.runtime.errors import BadInput
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home

POOL = "triage"  # that of `triage up`
FILE = Path(str(files("deployments"))) / "prefect.yaml"
BOUND_PROCESS = Path(__file__).with_name("bound_process.py")
EARLY_SECONDS = 60.0  # a worker that ends sooner has something wrong with it ...
EARLY_ENDS = 5  # ... and after so many of them in a row, no further one would live
RUN_ID = "PREFECT__FLOW_RUN_ID"  # in the environment of a flow run's process


QUEUES = {"default": 1, "light": 4}  # of the pool, with the runs that its worker takes at a time


def worker_name(queue: str = "default") -> str:
    """The name of a worker of this TRIAGE_HOME, by which no two homes share the pool: runs would
    land in the home whose worker happens to take them.
    """
    return f"triage-{hashlib.sha256(str(home()).encode()).hexdigest()[:12]}-{queue}"


def start_bound(
    arguments: list[str], environment: dict[str, str], name: str
) -> subprocess.Popen[bytes]:
    """Start a command of Prefect, whose process ends with this one; it writes to a log."""
    log = home() / "logs" / f"prefect-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", str(BOUND_PROCESS), "prefect", *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Worker:
    """The worker of a queue, which `keep` starts, and starts again once it has ended.

    Its flow runs go on without it.
    """

    def __init__(self, queue: str, environment: dict[str, str], say: Callable[[str], None]) -> None:
        self._queue = queue
        self._title = "Light worker" if queue == "light" else "Worker"
        self._environment = environment
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._early_ends = 0

    def keep(self) -> None:
        """Start the worker if it does not run.

        Raises BadInput with the worker's log after EARLY_ENDS consecutive workers that end within
        EARLY_SECONDS.
        """
        name = f"worker-{self._queue}"
        if self._process is not None:
            if self._process.poll() is None:
                return

            early = time.monotonic() - self._started_at < EARLY_SECONDS
            self._early_ends = self._early_ends + 1 if early else 0
            self._say(f"{self._title} ended.")
            if self._early_ends == EARLY_ENDS:
                raise BadInput(
                    f"{EARLY_ENDS} consecutive Prefect workers ended within {EARLY_SECONDS:.0f} s "
                    f"of their start; their output is in {home() / 'logs' / f'prefect-{name}.log'}. "
                    "Fix the problem and run the command again."
                )

        arguments = ["worker", "start", "--pool", POOL, "--work-queue", self._queue]
        arguments += ["--limit", str(QUEUES[self._queue]), "--name", worker_name(self._queue)]
        self._process = start_bound(arguments, self._environment, name)
        self._started_at = time.monotonic()
        self._say(f"{self._title} started (process {self._process.pid}).")

    def kill(self) -> None:
        """Kill the worker rather than ask it: one that is asked waits for its run, for hours."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def give_back_runs(api: str) -> None:
    """Kill the flow runs of this TRIAGE_HOME that report to the server at `api`, and let the next
    worker take them: a training resumes from its checkpoint. Their steps end with them.

    Raises NoAnswer.
    """
    from prefect.states import AwaitingRetry

    own_environment = {"PREFECT_API_URL": api, "TRIAGE_HOME": str(home())}.items()
    ids = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            # Steps inherit the environment; they leave by themselves when the run is gone.
            is_run = RUN_ID in environment and "prefect.engine" in " ".join(process.cmdline())
            if is_run and own_environment <= environment.items():
                process.kill()
                ids.append(environment[RUN_ID])

    if not ids:
        return
    with prefect_client(api) as client:
        for id in ids:
            state = client.read_flow_run(id).state
            if state is not None and (state.is_running() or state.is_pending()):
                again = AwaitingRetry(scheduled_time=datetime.now(UTC))
                client.set_flow_run_state(id, again, force=True)


def register(api: str, environment: dict[str, str]) -> None:
    """Create the pool and the deployments of `prefect.yaml` on the server at `api`.

    Changes made in the UI stay. Prefect replaces all schedules of a deployment that is deployed
    with schedules: one that was paused in the UI would run again, and one that was added there
    would be gone. So only a new deployment gets the schedules of the file.

    Raises BadInput with the log of what failed, or if workers of another TRIAGE_HOME serve the
    pool; NoAnswer.
    """
    with prefect_client(api) as client:
        if not _exists(client.read_work_pool, POOL):
            _run_prefect(["work-pool", "create", POOL, "--type", "process"], environment)
        # Before there are deployments, whose runs a worker of another home would take.
        own_names = {worker_name(queue) for queue in QUEUES}
        other_names = [
            worker.name
            for worker in client.read_workers_for_work_pool(POOL)
            if worker.status.value == "ONLINE" and worker.name not in own_names
        ]
        if other_names:
            raise BadInput(
                "Runs of this TRIAGE_HOME could land in another one, since the work pool "
                f"{POOL} of {api} is served by {', '.join(other_names)}; choose another port with "
                "--port, or stop that worker and wait two minutes."
            )

        definition: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        for deployment in definition["deployments"]:
            flow = deployment["entrypoint"].rpartition(".")[2]
            if _exists(client.read_deployment_by_name, f"{flow}/{deployment['name']}"):
                deployment.pop("schedules", None)

    file = home() / "prefect.yaml"
    write_atomic(file, json.dumps(definition, indent=1))  # JSON is YAML
    _run_prefect(["deploy", "--all", "--prefect-file", str(file)], environment)


def _exists(read: Callable[[str], object], name: str) -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        read(name)
    except ObjectNotFound:
        return False
    return True


def _run_prefect(arguments: list[str], environment: dict[str, str]) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        log = home() / "logs" / "prefect-setup.log"
        write_atomic(log, process.stdout + process.stderr)
        raise BadInput(f"`prefect {' '.join(arguments[:2])}` failed; its output is in {log}.")
