"""The workers of `triage up`: one for what trains, a run at a time, and one for light runs, which
answer while a sweep goes on.

A worker that ends is started again; its flow runs go on without it, and those that were lost with
it are queued again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from deployments.lost_runs import queue_lost_runs
from deployments.notifications import HEARTBEAT_SECONDS
from deployments.started_processes import UP, kill_group, start
from deployments.worker_names import worker_name
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import ACCELERATOR

POOL = "triage"  # that of `triage up`
JOIN = "join"  # the records of the workers of other pools
EARLY_SECONDS = 60.0  # a worker that ends sooner has something wrong with it ...
EARLY_ENDS = 5  # ... and after so many of them in a row, no further one would live


@dataclass(frozen=True)
class Queue:
    """A work queue of a pool. `limit`: runs that its worker takes at a time.

    `label` names its worker where it is not the only one. Without a `name` it stands for all queues
    of the pool, those that are made later, too.
    """

    name: str | None
    limit: int
    label: str = ""
    pool: str = POOL


QUEUES = (Queue("default", limit=1), Queue("light", limit=4, label="light"))


def worker_environment(api: str) -> dict[str, str]:
    """The environment of a worker and its flow runs, which report to the server at `api`."""
    return {
        **os.environ,
        "PREFECT_API_URL": api,
        # A database of this home's own, apart from whatever else uses Prefect here.
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(home() / "prefect"),
        # A run waits up to so long before it starts; Prefect's default is 10 s.
        "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "2"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "TRIAGE_HOME": str(home()),
        # All workers of this machine take turns at its accelerator.
        ACCELERATOR: os.environ.get(ACCELERATOR) or "0",
    }


class Worker:
    """The worker of a queue, which `keep` starts, and starts again once it has ended."""

    def __init__(
        self, queue: Queue, api: str, environment: dict[str, str], say: Callable[[str], None]
    ) -> None:
        self.queue = queue
        self.title = f"{queue.label} worker".strip()
        self._api = api
        self._environment = environment
        self._say = say
        self._stack = contextlib.ExitStack()  # of its process
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._early_ends = 0

    def keep(self) -> None:
        """Start the worker if it does not run, after queueing lost runs of its queue again.

        Raises BadInput with the worker's log after EARLY_ENDS consecutive workers that end within
        EARLY_SECONDS, and NoAnswer.
        """
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._note_end()

        for name in queue_lost_runs(self._api, self.queue.pool, self.queue.name):
            self._say(f"Queued again, since its process is gone: {name}.")

        self._start()

    def kill(self) -> None:
        """Kill the worker rather than ask it: one that is asked waits for its run, for hours.

        The run stays Running on the server, and the next start finds its process gone and queues it
        again.
        """
        if self._process is not None:
            kill_group(self._process.pid)

    def close(self) -> None:
        """End the worker's process, and remove its record."""
        self._stack.close()
        self._process = None

    @property
    def _log(self) -> str:
        pool = "" if self.queue.pool == POOL else self.queue.pool
        return "-".join(part for part in ("worker", pool, self.queue.label) if part)

    def _start(self) -> None:
        queue = ["--work-queue", self.queue.name] if self.queue.name else []
        name = worker_name(self.queue.label)
        command = ["worker", "start", "--pool", self.queue.pool, *queue]
        command += ["--limit", str(self.queue.limit), "--name", name]
        records = UP if self.queue.pool == POOL else JOIN
        self._process = start(self._stack, command, self._environment, self._log, records)
        self._started_at = time.monotonic()
        self._say(f"{self.title.capitalize()} started (process {self._process.pid}).")

    def _note_end(self) -> None:
        early = time.monotonic() - self._started_at < EARLY_SECONDS
        self._early_ends = self._early_ends + 1 if early else 0
        self.close()
        self._say(f"The {self.title} ended.")

        if self._early_ends == EARLY_ENDS:
            log = home() / "logs" / f"prefect-{self._log}.log"
            raise BadInput(
                f"{EARLY_ENDS} consecutive Prefect workers ended within {EARLY_SECONDS:.0f} s "
                f"of their start; their output is in {log}. Fix the problem and run the command "
                "again."
            )
