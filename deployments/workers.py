"""The workers of `triage up`: one for what trains, a run at a time, and one for light runs, which
answer during a sweep; and what they serve, the work pool and the deployments of `prefect.yaml`.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml  # type: ignore[import-untyped]

from deployments.server import RETRIES, prefect_client, start_bound
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL = "triage"  # that of `triage up`
FILE = Path(str(files("deployments"))) / "prefect.yaml"
EARLY_SECONDS = 60.0  # a worker that ends sooner has something wrong with it ...
EARLY_ENDS = 5  # ... and after so many of them in a row, no further one would live
RUN_ID = "PREFECT__FLOW_RUN_ID"  # in the environment of a flow run's process
QUEUES = {"default": 1, "light": 4}  # of the pool, with the runs that its worker takes at a time


def worker_name(queue: str = "default") -> str:
    """The name of a worker of this TRIAGE_HOME, by which no two homes share the pool: runs would
    land in the home whose worker happens to take them.
    """
    return f"triage-{hashlib.sha256(str(home()).encode()).hexdigest()[:12]}-{queue}"


class Worker:
    """The worker of a queue, which `keep` starts, and starts again once it has ended.

    Its flow runs go on without it.
    """

    def __init__(self, queue: str, environment: dict[str, str], say: Callable[[str], None]) -> None:
        self._queue = queue
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
        log = home() / "logs" / f"prefect-worker-{self._queue}.log"
        if self._process is not None:
            if self._process.poll() is None:
                return

            self._say(f"Worker {self._queue} ended.")
            early = time.monotonic() - self._started_at < EARLY_SECONDS
            self._early_ends = self._early_ends + 1 if early else 0
            if self._early_ends == EARLY_ENDS:
                raise BadInput(
                    f"{EARLY_ENDS} consecutive Prefect workers ended within {EARLY_SECONDS:.0f} s "
                    f"of their start; their output is in {log}. Fix the problem and run "
                    "the command again."
                )

        arguments = ["prefect", "worker", "start", "--pool", POOL, "--work-queue", self._queue]
        arguments += ["--limit", str(QUEUES[self._queue]), "--name", worker_name(self._queue)]
        self._process = start_bound(arguments, self._environment, log)
        self._started_at = time.monotonic()
        self._say(f"Worker {self._queue} started (process {self._process.pid}).")

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
        # SystemError: psutil 7.2.2 on a Mac, of a process that ends meanwhile (psutil PR 2854).
        with contextlib.suppress(psutil.Error, OSError, SystemError):
            environment = process.environ()
            # Steps inherit the environment; they leave by themselves when the run is gone.
            is_run = RUN_ID in environment and "prefect.engine" in " ".join(process.cmdline())
            if is_run and own_environment <= environment.items():
                process.kill()
                ids.append(environment[RUN_ID])

    if not ids:
        return
    with prefect_client(api, retries=RETRIES) as client:
        for id in ids:
            state = client.read_flow_run(id).state
            if state is not None and (state.is_running() or state.is_pending()):
                again = AwaitingRetry(scheduled_time=datetime.now(UTC))
                client.set_flow_run_state(id, again, force=True)


def register(api: str) -> None:
    """Create the pool and the deployments of `prefect.yaml` on the server at `api`.

    Raises BadInput if workers of another TRIAGE_HOME serve the pool; NoAnswer.
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    with prefect_client(api, retries=RETRIES) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template)
            client.create_work_pool(pool)

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

        for definition in definitions():
            deploy(client, definition)


def definitions() -> list[dict[str, Any]]:
    """The deployments of `prefect.yaml`."""
    deployments: list[dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["deployments"]
    return deployments


def deploy(client: SyncPrefectClient, definition: dict[str, Any]) -> None:
    """Create or update a deployment. One that exists keeps its schedules, which a person may have
    changed in the UI.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
    from prefect.client.schemas.objects import ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow: Any = load_flow_from_entrypoint(definition["entrypoint"])
    pool = definition["work_pool"]
    values = {
        **{name: definition[name] for name in ("entrypoint", "description", "tags")},
        "work_pool_name": pool["name"],
        "work_queue_name": pool["work_queue_name"],
        "job_variables": pool["job_variables"],
        "parameter_openapi_schema": parameter_schema(flow).model_dump(),
    }
    if concurrency := definition.get("concurrency_limit"):
        options = ConcurrencyOptions(collision_strategy=concurrency["collision_strategy"])
        values |= {"concurrency_limit": concurrency["limit"], "concurrency_options": options}

    try:
        existing = client.read_deployment_by_name(f"{flow.name}/{definition['name']}")
        client.update_deployment(existing.id, DeploymentUpdate(**values))
    except ObjectNotFound:
        schedules = [
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=entry["cron"], timezone=entry["timezone"]),
                **{name: entry[name] for name in ("slug", "parameters", "active")},
            )
            for entry in definition.get("schedules", [])
        ]
        flow_id = client.create_flow_from_name(flow.name)
        client.create_deployment(flow_id, definition["name"], schedules=schedules, **values)
