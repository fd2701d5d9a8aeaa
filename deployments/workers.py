"""The workers of `triage up`: one for what trains, a run at a time, and one for light runs, which
answer while a sweep goes on.

A worker that ends is started again; its flow runs go on without it, and those that were lost with
it are queued again.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from deployments.lost_runs import queue_lost_runs
from deployments.prefect_api import api_url
from deployments.started_processes import kill_group, start
from deployments.worker_names import worker_name
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home

POOL = "triage"
EARLY_SECONDS = 60.0  # a worker that ends sooner has something wrong with it ...
EARLY_ENDS = 5  # ... and after so many of them in a row, no further one would live


@dataclass(frozen=True)
class Queue:
    """A work queue of the pool. `limit`: runs that its worker takes at a time.

    `label` names its worker where it is not the only one.
    """

    name: str
    limit: int
    label: str = ""


QUEUES = (Queue("default", limit=1), Queue("light", limit=4, label="light"))


class Worker:
    """The worker of a queue, which `keep` starts, and starts again once it has ended."""

    def __init__(
        self, queue: Queue, port: int, environment: dict[str, str], say: Callable[[str], None]
    ) -> None:
        self.queue = queue
        self.title = f"{queue.label} worker".strip()
        self._port = port
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

        for name in queue_lost_runs(api_url(self._port), POOL, self.queue.name):
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
        return "-".join(part for part in ("worker", self.queue.label) if part)

    def _start(self) -> None:
        queue = ["--work-queue", self.queue.name, "--limit", str(self.queue.limit)]
        name = worker_name(self.queue.label)
        command = ["worker", "start", "--pool", POOL, *queue, "--name", name]
        self._process = start(self._stack, command, self._environment, self._log)
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
                f"of their start; their output is in {log}. Fix the problem and run `triage up` again."
            )
