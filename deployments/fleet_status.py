"""The machines of a server's work pools: which are there, what they do, and when they last said so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from deployments.prefect_api import answering, prefect_client
from deployments.worker_names import ONLINE, host_of, worker_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@dataclass(frozen=True)
class PoolWorker:
    """A worker of a pool. `seconds`: since its last heartbeat, by the server's clock; `runs`: names
    of what it runs.
    """

    pool: str
    host: str
    worker: str
    is_online: bool
    seconds: float | None
    runs: list[str]


def machines(api: str) -> list[PoolWorker]:
    """The workers of all process pools, by pool and host. Raises BadInput if no server answers."""
    with answering(api), prefect_client(api, retries=5) as client:
        now = _server_time(client)
        runs_by_worker = _runs_by_worker(client)
        fleet = [
            PoolWorker(
                pool=pool.name,
                host=host_of(worker.name),
                worker=worker.name,
                is_online=worker.status.value == ONLINE,
                seconds=_since(worker.last_heartbeat_time, now),
                runs=runs_by_worker.get(worker.name, []),
            )
            for pool in client.read_work_pools()
            for worker in client.read_workers_for_work_pool(pool.name)
        ]
    return sorted(fleet, key=lambda machine: (machine.pool, not machine.is_online, machine.host))


def _since(heartbeat: datetime | None, now: datetime) -> float | None:
    return None if heartbeat is None else max(0.0, (now - heartbeat).total_seconds())


def _server_time(client: SyncPrefectClient) -> datetime:
    """The server's clock, since that of this machine may be minutes off."""
    return parsedate_to_datetime(client.request("GET", "/health").headers["date"])


def _runs_by_worker(client: SyncPrefectClient) -> dict[str, list[str]]:
    """Names of the runs that each worker is at."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    active_states = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    runs: dict[str, list[str]] = {}
    for run in client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=active_states))
    ):
        if worker := worker_of(run):
            runs.setdefault(worker, []).append(run.name)

    return runs
