"""Names of workers, which identify their TRIAGE_HOME, so that no two homes share a work pool.

In one pool, runs would land in the home whose worker happens to take them. The name holds an id
that is kept in the home: two machines may have it at the same path, and a laptop's host name
changes with its network.
"""

from __future__ import annotations

import re
import secrets
import socket
from typing import TYPE_CHECKING

from tasks.runtime.errors import BadInput
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

WORKER = "prefect.worker.name"  # Prefect's label of the worker that took a run
ONLINE = "ONLINE"  # the status of a worker that serves its pool now, or did some 90 seconds ago
_NAME = re.compile(r"triage-(?P<host>.+)-(?P<home>[0-9a-f]{12})(-light)?")


def worker_name(label: str = "") -> str:
    """The name of a worker of this TRIAGE_HOME on this machine; `label` tells it from another one."""
    return "-".join(part for part in ("triage", socket.gethostname(), _home_id(), label) if part)


def host_of(worker: str) -> str:
    """The machine of a worker, by its name; a name of another form says no more than itself."""
    parts = _NAME.fullmatch(worker)
    return parts["host"] if parts else worker


def worker_of(run: FlowRun) -> str:
    """The name of the worker that took a run; empty if none has, or none has said so yet."""
    return str(run.labels.get(WORKER, ""))


def online_workers(client: SyncPrefectClient, pool: str) -> list[str]:
    """Names of the workers that serve `pool` now, or did some 90 seconds ago."""
    workers = client.read_workers_for_work_pool(pool)
    return [worker.name for worker in workers if worker.status.value == ONLINE]


def refuse_other_workers(client: SyncPrefectClient, pool: str) -> None:
    """Raise BadInput if a worker of another TRIAGE_HOME serves `pool`."""
    api = str(client.api_url).rstrip("/")
    if other_names := other_workers(client, pool):
        raise BadInput(
            "Runs of this TRIAGE_HOME could land in another one, "
            f"since the work pool {pool} of {api} is served by {', '.join(other_names)}; "
            "choose another port with --port, or stop that worker and wait two minutes."
        )


def other_workers(client: SyncPrefectClient, pool: str) -> list[str]:
    """Names of the workers of other homes that serve `pool` now, or did some 90 seconds ago."""
    return [name for name in online_workers(client, pool) if not _is_of_this_home(name)]


def is_elsewhere(worker: str, other_names: list[str]) -> bool:
    """Whether a worker is surely not of this machine.

    It is one of the `other_names`, which serve the pool now, or has the name of another home on
    another machine. Names of another form say nothing.
    """
    parts = _NAME.fullmatch(worker)
    return worker in other_names or (
        parts is not None and not _is_of_this_home(worker) and parts["host"] != socket.gethostname()
    )


def _is_of_this_home(worker: str) -> bool:
    parts = _NAME.fullmatch(worker)
    return parts is not None and parts["home"] == _home_id()


def _home_id() -> str:
    """Twelve hexadecimal digits that identify this TRIAGE_HOME, drawn on first use."""
    file = home() / "home-id"
    if not file.exists():
        write_atomic(file, secrets.token_hex(6))
    return file.read_text(encoding="utf-8")
