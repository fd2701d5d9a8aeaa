"""The runs of a sweep's cells in a work pool, through Prefect's client.

A cell is known by (sweep, cell id), which is the idempotency key of its run: the same sweep, typed
again, finds the runs that it submitted and makes no twin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Scheduled
from prefect.utilities.callables import parameter_schema

from deployments.lost_runs import due
from deployments.pool_names import check_pool_name
from deployments.pool_versions import Versions, differences, read_versions, versions_here
from deployments.worker_names import host_of, worker_of
from deployments.workers import POOL
from flows.pool.cell import PooledCell
from flows.selection import Selection
from tasks.grids.grid import grid_path, load_grid
from tasks.runtime.errors import BadInput
from tasks.runtime.events import RemoteReport
from tasks.spec import ExperimentSpec, short_digest
from tasks.studies import grid_digest

ENTRYPOINT = "flows.experiment.experiment"
DECIDES_NOTHING = "backend"  # for the machine that asks: it computes nothing itself
# The server returns at most 200 rows, unless it is configured otherwise.
IDS_AT_ONCE = 100  # runs that are asked for in one request


@dataclass(frozen=True)
class PooledSweep:
    """A sweep in a work pool: what its machines run, and by which name its cells are known.

    `data`: name of the data set.
    """

    pool: str
    grid: str
    overrides: list[str]
    selection: Selection
    digest: str
    of_pool: Versions
    data: str

    @classmethod
    def of(
        cls,
        client: SyncPrefectClient,
        pool: str,
        grid: str,
        overrides: list[str],
        selection: Selection,
        data: str,
    ) -> PooledSweep:
        """Raises BadInput where the pool cannot run it: it is missing, nobody has joined it, or its
        versions are not those of this machine.
        """
        is_file = grid.endswith(".toml") or "/" in grid
        path = str(Path(grid_path(grid)).resolve()) if is_file else grid
        digest = grid_digest(load_grid(grid, overrides))
        of_pool = usable_versions(client, pool)
        return cls(pool, path, overrides, selection, digest, of_pool, data)

    def key(self, spec: ExperimentSpec) -> str:
        """The name of a cell's run on the server; another grid, version or data set is another
        sweep, and so is another choice of precisions where adapters are moved to those of the
        sweep.
        """
        ingredients: dict[str, str | list[str]] = {
            "grid": self.digest,
            "pool": self.pool,
            "data": self.data,
            **self.of_pool,
        }
        if self.selection.grid.scoring.move_adapters is True:
            ingredients["precisions"] = self._precisions(spec)

        return f"triage-{short_digest(ingredients)}-{spec.cell_id}"

    def _precisions(self, spec: ExperimentSpec) -> list[str]:
        """Those at which the sweep has the cell's base model."""
        return [name for model, name in self.selection.variants if model == spec.model.name]

    def parameters(self, spec: ExperimentSpec) -> dict[str, Any]:
        """The parameters of the flow `experiment` for one cell."""
        pooled = PooledCell(
            cell=spec.cell_id,
            key=self.key(spec),
            grid_digest=self.digest,
            triage=self.of_pool["triage"],
            precisions=self._precisions(spec),
        )
        return {
            "model": spec.model.name,
            "precision": spec.precision.name,
            "recipe": spec.recipe.name,
            "seed": spec.seed,
            "grid": self.grid,
            "overrides": self.overrides,
            "pooled": pooled.model_dump(mode="json"),
        }


def usable_versions(client: SyncPrefectClient, pool: str) -> Versions:
    """What the machines of a pool have in common. Raises BadInput where it cannot take a sweep of
    this machine.
    """
    check_pool_name(pool)
    if pool == POOL:
        raise BadInput(
            f"The work pool {POOL} is that of `triage up` and takes one sweep at a time; let its "
            "machines join another one, e.g. `triage join URL --pool fleet`, and name that."
        )

    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        raise BadInput(
            f"There is no work pool {pool} at {str(client.api_url).rstrip('/')}; type `triage join "
            f"URL --pool {pool}` on a machine that is to work for it."
        ) from None

    of_pool = read_versions(client, pool)
    if of_pool is None:
        raise BadInput(
            f"No machine has joined the work pool {pool}; type `triage join URL --pool {pool}` on "
            "one that is to work for it."
        )

    local_versions = {**versions_here(), DECIDES_NOTHING: of_pool[DECIDES_NOTHING]}
    if unequal := differences(local_versions, of_pool):
        raise BadInput(
            f"The work pool {pool} has other versions than this machine: {unequal}; bring both to "
            "one version, and join again."
        )

    return of_pool


def register(client: SyncPrefectClient, pool: str) -> UUID:
    """The id of the deployment `experiment/POOL`, which is made or brought up to date."""
    from flows.experiment import experiment  # which imports the cell of a pool

    return client.create_deployment(
        flow_id=client.create_flow_from_name(experiment.name),
        name=pool,
        entrypoint=ENTRYPOINT,
        work_pool_name=pool,
        parameter_openapi_schema=parameter_schema(experiment).model_dump(),
        tags=["triage"],
        # A run that prints through its worker crashes with it; the UI shows its logs.
        job_variables={"stream_output": False},
    )


def submit(client: SyncPrefectClient, sweep: PooledSweep) -> dict[str, FlowRun]:
    """The run of each cell, by cell id: those that are there, and new ones for the others."""
    deployment = register(client, sweep.pool)
    for variant in sweep.selection.variants:
        _make_queue(client, sweep.pool, queue_of(*variant))
    return {
        spec.cell_id: client.create_flow_run_from_deployment(
            deployment,
            parameters=sweep.parameters(spec),
            name=spec.title,
            state=Scheduled(scheduled_time=due()),
            idempotency_key=sweep.key(spec),
            work_queue_name=queue_of(spec.model.name, spec.precision.name),
            tags=["triage", f"sweep {sweep.selection.grid.name}"],
        )
        for spec in sweep.selection.cells
    }


def queue_of(model: str, precision: str) -> str:
    """The work queue of a variant: a machine that takes a run of it has its weights afterwards."""
    return f"{model}-{precision}"


def _make_queue(client: SyncPrefectClient, pool: str, queue: str) -> None:
    try:
        client.create_work_queue(queue, concurrency_limit=1, work_pool_name=pool)
    except ObjectAlreadyExists:
        return


def share_out(
    client: SyncPrefectClient,
    pool: str,
    machines: int,
    limits: dict[str, int],
    unfinished: set[str],
) -> None:
    """Let each queue of an unfinished variant run on its part of the machines that are there.

    With one run of a variant at a time, the machine that has just ended one takes the next of the
    same variant, since the other queues are busy; once there are fewer variants than machines,
    several work for one. `limits`: those that were set last, by queue.
    """
    sharing = max(1, len(unfinished))
    limit = max(1, math.ceil(machines / sharing))
    for queue in sorted(unfinished):
        if limits.get(queue) != limit:
            work_queue = client.read_work_queue_by_name(queue, work_pool_name=pool)
            client.update_work_queue(work_queue.id, concurrency_limit=limit)
            limits[queue] = limit


def read_runs(client: SyncPrefectClient, ids: Sequence[UUID]) -> list[FlowRun]:
    """Runs by id, as they are now."""
    runs: list[FlowRun] = []
    for start in range(0, len(ids), IDS_AT_ONCE):
        part = FlowRunFilterId(any_=list(ids[start : start + IDS_AT_ONCE]))
        runs += client.read_flow_runs(flow_run_filter=FlowRunFilter(id=part))
    return runs


def read_progress(client: SyncPrefectClient, runs: Iterable[FlowRun]) -> dict[UUID, RemoteReport]:
    """Who runs each of these runs, and how far its step is, from its progress artifact."""
    by_id = {run.id: run for run in runs}
    reports = {id: RemoteReport(host_of(worker_of(run))) for id, run in by_id.items()}
    if not by_id:
        return reports

    artifacts = client.read_artifacts(
        artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])),
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(by_id))),
    )
    for artifact in artifacts:
        id = artifact.flow_run_id
        step = str(artifact.description).partition(" ")[0]
        if id in reports:
            reports[id] = RemoteReport(reports[id].worker, step, float(str(artifact.data)))

    return reports


def forget_leases(client: SyncPrefectClient, keys: Iterable[str]) -> None:
    """Remove the limits by which the cells of a finished sweep were leased."""
    for key in keys:
        try:
            client.delete_global_concurrency_limit_by_name(key)
        except ObjectNotFound:
            continue
