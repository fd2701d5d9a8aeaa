"""A sweep on the machines of a Prefect work pool.

Each cell is a run of the deployment `experiment/POOL`, known by an idempotency key of sweep and
cell: the same sweep, typed again, finds the runs that it submitted and makes no twin. What they
land comes through the folder that all machines share.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry
from pydantic import BaseModel, ConfigDict

from deployments.notify import LOST, TAG, run_lost_runs_again
from deployments.server import (
    RETRIES,
    NoAnswer,
    configured_api,
    prefect_client,
    refuse_unusable_server,
)
from deployments.workers import POOL, definitions, deploy
from flows.selection import Selection
from tasks.corpus.prepare import prepare_dataset
from tasks.grids.grid import grid_path, load_grid
from tasks.landing import SweepRecord, absent_from_warehouse, grid_digest, land_dataset, take_over
from tasks.progress import publish, publisher
from tasks.runtime.backend import backend, versions
from tasks.runtime.errors import BadInput, BrokenFolder, SourceUnavailable, TriageError
from tasks.runtime.events import (
    ExperimentFailed,
    ExperimentLanded,
    ProgressReport,
    RemoteReport,
    StepWarning,
)
from tasks.runtime.home import home
from tasks.runtime.shared import shared_place
from tasks.spec import ExperimentSpec, short_digest
from warehouse.connect import warehouse_path

PACKAGES = ("flows", "tasks", "warehouse", "deployments")
SOURCES = (".py", ".sql", ".toml")
RESULT = "triage.result"  # the label of a pooled run that holds a PooledResult
BACKEND = "TRIAGE_POOL_BACKEND"  # of the machines, where it is not that of whoever asks
POLL_SECONDS = 2.0
REPEATS = 3  # of one cell, after which it is not the machines' fault
LAG_SECONDS = 60.0  # in which a shared place shows what another machine has written
IDS_AT_ONCE = 100  # runs asked for in one request: a server returns at most 200 rows
WORKER = "uv run prefect worker start --pool {} --limit 1"
FIXABLE = {error.__name__: error for error in (BadInput, SourceUnavailable)}


class PooledCell(BaseModel):
    """What a machine of a work pool needs to know of the sweep.

    `versions`: those of the sweep, by name. `precisions`: those of the sweep's experiments on the
    same base model.
    """

    model_config = ConfigDict(frozen=True)

    cell: str
    grid_digest: str
    versions: dict[str, str]
    precisions: list[str]


class PooledResult(BaseModel):
    """What a pooled run tells the sweep that waits for it.

    `machine`: who runs it. `landed`, `models`: ids of results, and of models with results. `error`:
    class of the error. `seconds`: of its process, and of those of its steps.
    """

    machine: str = ""
    landed: list[str] = []
    models: list[str] = []
    error: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)


def versions_here() -> dict[str, str]:
    """What decides results: the backend, this project's sources, and the libraries.

    A sweep of two of them would compare figures that differ for reasons other than the precision.
    Raises BadInput where MLX is not installed.
    """
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*")):
            if path.suffix in SOURCES and path.is_file():
                digest.update(f"{package}/{path.relative_to(root).as_posix()}".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())

    # `metal-nax` where a Mac rounds otherwise than others: its trainings have ids of their own.
    parts = (backend().name, backend().id_ingredients.get("arithmetic"))
    name = "-".join(filter(None, parts))
    return {"backend": name, "triage": digest.hexdigest()[:12], **versions()}


def refuse_pool(pool: str) -> None:
    """Raise BadInput where a work pool cannot take a sweep of this machine."""
    if pool == POOL:
        raise BadInput(
            f"The work pool {POOL} is that of `triage up` and takes one sweep at a time; let "
            f"machines work for another one, e.g. `{WORKER.format('macs')}`, and name that."
        )

    api = configured_api()
    refuse_unusable_server(api)
    with prefect_client(api, retries=RETRIES) as client:
        try:
            client.read_work_pool(pool.strip() or "-")
        except ObjectNotFound:
            raise BadInput(
                f"There is no work pool {pool!r} at {api}; make it with `uv run prefect work-pool "
                f"create {pool} --type process`, and type `{WORKER.format(pool)}` on each machine."
            ) from None


def sweep_in_pool(
    pool: str, grid: str, overrides: list[str], selection: Selection, record: SweepRecord
) -> list[str]:
    """Submit the cells that are not finished, wait for all, and return the failures.

    A server that does not answer is waited for. Raises BadInput where the pool cannot take the
    sweep.
    """
    refuse_pool(pool)
    api = configured_api()
    data = prepare_dataset(selection.grid.data, home(), selection.grid.evaluation_sets)
    land_dataset(data)
    record.use(data)
    record.begin()

    sweep = PooledSweep(pool, grid, overrides, selection, record, data)
    with prefect_client(api, retries=RETRIES) as client:
        sweep.submit(client)
    sweep.follow(api)

    failures = [failure for failure in sweep.ends.values() if failure]
    times = [result_of(run).seconds for run in sweep.runs.values()]
    record.finish(len(failures), times)
    return failures


@dataclass
class PooledSweep:
    """The cells of a sweep as runs of a pool, as they were last seen.

    `runs`, `ends`: run, and failure or None, by cell id. `repeats`: how often a cell was asked for
    again.
    """

    pool: str
    grid: str
    overrides: list[str]
    selection: Selection
    record: SweepRecord
    data: Path
    runs: dict[str, FlowRun] = field(default_factory=dict)
    ends: dict[str, str | None] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    _said: set[str] = field(default_factory=set)
    _missing_since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.digest = grid_digest(load_grid(self.grid, self.overrides))
        if self.grid.endswith(".toml") or "/" in self.grid:
            self.grid = str(Path(grid_path(self.grid)).resolve())
        self.versions = versions_here()
        if named := os.environ.get(BACKEND, "").strip():
            self.versions["backend"] = named

    def submit(self, client: SyncPrefectClient) -> None:
        """Find or make the run of each cell. What failed, waits after it was given back, or is gone
        since, runs again.
        """
        run_lost_runs_again(client)
        # As `triage up` offers it, on another work pool.
        (own,) = (one for one in definitions() if one["name"] == "experiment")
        pool = own["work_pool"] | {"name": self.pool}
        deploy(client, own | {"name": self.pool, "work_pool": pool})
        workers = client.read_workers_for_work_pool(self.pool)
        if not any(worker.status.value == "ONLINE" for worker in workers):
            self._warn(
                f"No machine works for the pool {self.pool} now; type "
                f"`{WORKER.format(self.pool)}` on one."
            )

        for spec in self.selection.cells:
            pooled = PooledCell(
                cell=spec.cell_id,
                grid_digest=self.digest,
                versions=self.versions,
                precisions=self._precisions(spec),
            )
            parameters = {
                "model": spec.model.name,
                "precision": spec.precision.name,
                "recipe": spec.recipe.name,
                "seed": spec.seed,
                "grid": self.grid,
                "overrides": self.overrides,
                "pooled": pooled.model_dump(mode="json"),
            }
            run: Any = run_deployment(
                f"experiment/{self.pool}",
                parameters=parameters,
                flow_run_name=spec.title,
                timeout=0,
                as_subflow=False,
                idempotency_key=self.key(spec),
                tags=[TAG, f"sweep {self.selection.grid.name}"],
            )
            self.runs[spec.cell_id] = run
            again = run.state.is_final() or run.state.name == "AwaitingRetry"
            if run.state.is_completed():
                try:
                    again = bool(self._absent(run))
                except TriageError:  # said when the run is looked at
                    again = False
            if again:
                self._run_again(client, spec.cell_id)

    def key(self, spec: ExperimentSpec) -> str:
        """The name of a cell's run on the server; another grid, version or data set is another
        sweep, and so is another choice of precisions where adapters are moved to those of the
        sweep.
        """
        ingredients: dict[str, str | list[str]] = {
            "grid": self.digest,
            "pool": self.pool,
            "data": self.data.name,
            **self.versions,
        }
        if self.selection.grid.scoring.move_adapters is True:
            ingredients["precisions"] = self._precisions(spec)

        return f"triage-{short_digest(ingredients)}-{spec.cell_id}"

    def _precisions(self, spec: ExperimentSpec) -> list[str]:
        """Those at which the sweep has the cell's base model."""
        return [name for model, name in self.selection.variants if model == spec.model.name]

    def follow(self, api: str) -> None:
        """Look at the runs until all have ended, and keep the sweep's progress artifact up to
        date.
        """
        progress = publisher(f"sweep {self.selection.grid.name}", stays=True)
        while True:
            try:
                # Without retries, since the next look is one.
                with prefect_client(api) as client:
                    self.look(client)
            except NoAnswer as error:
                publish("pool", StepWarning(f"{error} The sweep waits for it."))

            progress(ProgressReport("experiments", len(self.ends), len(self.runs)))
            if len(self.ends) == len(self.runs):
                return
            time.sleep(POLL_SECONDS)

    def look(self, client: SyncPrefectClient) -> None:
        """Note which runs have ended, and show what the others do."""
        cells = {run.id: cell for cell, run in self.runs.items() if cell not in self.ends}
        ids = list(cells)
        running = []
        for start in range(0, len(ids), IDS_AT_ONCE):
            part = FlowRunFilterId(any_=ids[start : start + IDS_AT_ONCE])
            for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=part)):
                cell = cells.pop(run.id)
                self.runs[cell] = run
                state = run.state
                assert state is not None, "a run on a server has one"
                if state.is_running():
                    running.append((cell, run))
                elif state.is_final():
                    self._end(client, cell, run)
                # By a machine of another version, in the same words for each cell; or by the
                # automation.
                elif state.name == "AwaitingRetry" and state.message:
                    is_lost = state.message == LOST
                    self._warn(f"{cell}: {state.message}" if is_lost else state.message)

        for cell in cells.values():
            gone = "Its run is gone from the Prefect server; type the same command again."
            self._fail(cell, TriageError(gone))

        if running:
            _show_progress(client, running)

    def _end(self, client: SyncPrefectClient, cell: str, run: FlowRun) -> None:
        """Note how a cell ended: what it landed belongs to the sweep."""
        state: Any = run.state
        result = result_of(run)
        ids = result.landed
        if state.is_crashed():
            place = result.machine or "its machine"
            failure = TriageError(f"It was lost {REPEATS + 1} times; last: {state.message}")
            self._repeat(client, cell, f"{cell} was lost with {place} and runs again.", failure)
            return

        try:
            absent = self._absent(run)
        except BrokenFolder as error:
            warning = f"A result of {cell} was damaged in the shared folder; it runs again. {error}"
            self._repeat(client, cell, warning, error)
            return
        except TriageError as error:
            self._fail(cell, error, ids)
            return

        if not state.is_completed():
            # Of the class that its label names.
            kind = FIXABLE.get(result.error, TriageError)
            text = state.message or f"it ended as {state.name}."
            self._fail(cell, kind(text.removeprefix(f"{cell}: ")), ids)
        elif not absent:
            self.ends[cell] = None
            self.record.add(ids)
            of_cell = tuple(id for id in ids if id.startswith(f"{cell}-"))
            publish(f"land {cell}", ExperimentLanded(of_cell))
        else:
            since = self._missing_since.setdefault(cell, time.monotonic())
            if not shared_place() or time.monotonic() - since > LAG_SECONDS:
                failure = TriageError(
                    f"Its results are not in {warehouse_path()}: they stay on {result.machine}; "
                    "name the folder that all machines share in TRIAGE_SHARED, on each of them and "
                    "here."
                )
                warning = f"The results of {cell} are missing; it runs again."
                self._repeat(client, cell, warning, failure)

    def _absent(self, run: FlowRun) -> list[str]:
        """What a run has landed that is not here, after bringing what is shared."""
        result = result_of(run)
        take_over([*result.models, *result.landed], self.data)
        return absent_from_warehouse(result.landed) if result.landed else ["everything"]

    def _repeat(
        self, client: SyncPrefectClient, cell: str, warning: str, failure: TriageError
    ) -> None:
        """Let a run be taken again, unless that was done too often: then it is a failure."""
        if self.repeats[cell] == REPEATS:
            self._fail(cell, failure)
            return
        self._run_again(client, cell)
        publish(f"experiment {cell}", StepWarning(warning))

    def _run_again(self, client: SyncPrefectClient, cell: str) -> None:
        """Finished steps are not repeated, and a training goes on from its checkpoint where it
        lies.
        """
        self.repeats[cell] += 1
        self._missing_since.pop(cell, None)
        again: State[Any] = AwaitingRetry(scheduled_time=datetime.now(UTC))
        client.set_flow_run_state(self.runs[cell].id, again, force=True)

    def _fail(self, cell: str, error: TriageError, ids: Iterable[str] = ()) -> None:
        self.ends[cell] = f"{cell}: {error}"
        self.record.add(ids)
        publish(f"land {cell}", ExperimentFailed(str(error), error))

    def _warn(self, sentence: str) -> None:
        """Say it, unless it was said."""
        if sentence not in self._said:
            self._said.add(sentence)
            publish("pool", StepWarning(sentence))


def result_of(run: FlowRun) -> PooledResult:
    """What a run has told; nothing where it has not begun."""
    return PooledResult.model_validate_json(str(run.labels.get(RESULT, "{}")))


def _show_progress(client: SyncPrefectClient, running: list[tuple[str, FlowRun]]) -> None:
    """Publish who runs each of these cells, and how far its step is, from its progress artifact."""
    artifacts = client.read_artifacts(
        artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])),
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id for _, run in running])),
    )
    by_run = {artifact.flow_run_id: artifact for artifact in artifacts}
    for cell, run in running:
        report = RemoteReport(result_of(run).machine)
        if artifact := by_run.get(run.id):
            step = str(artifact.description).partition(" ")[0]
            report = RemoteReport(report.worker, step, float(str(artifact.data)))
        publish(f"experiment {cell}", report)
