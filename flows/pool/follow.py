"""Follows the cells of a sweep in a work pool to their ends: what they do, and how they ended."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from deployments.lost_runs import run_again
from deployments.prefect_api import NoAnswer, answering, configured_api, prefect_client
from deployments.worker_names import ONLINE, worker_of
from flows.pool.cell import ERROR, LANDED, MODELS, RUN_SECONDS, STEP_SECONDS
from flows.pool.runs import (
    PooledSweep,
    forget_leases,
    queue_of,
    read_progress,
    read_runs,
    share_out,
    submit,
)
from flows.selection import Selection
from tasks.corpus.prepare import prepare_dataset
from tasks.landing import absent_from_warehouse, take_over
from tasks.progress import publish, publisher
from tasks.runtime.errors import BadInput, BrokenFolder, SourceUnavailable, TriageError
from tasks.runtime.events import (
    ExperimentFailed,
    ExperimentLanded,
    ProgressReport,
    StepWarning,
)
from tasks.runtime.home import home
from tasks.studies import RunTime, SweepRecord, land_dataset
from warehouse.connect import warehouse_path

POLL_SECONDS = 2.0
RETRIES = 5  # of a request while cells are submitted: a busy server refuses some for a moment
CRASHES = 3  # of one cell, damaged results included, after which it is not the machines' fault
GONE = (
    "Its run is gone from the Prefect server; type the same command again to ask for another one."
)
FIXABLE = {error.__name__: error for error in (BadInput, SourceUnavailable)}


@dataclass
class _Followed:
    """The runs of a sweep as they were last seen."""

    sweep: PooledSweep
    record: SweepRecord
    runs: dict[str, FlowRun]
    ends: dict[str, str | None] = field(default_factory=dict)  # failure, or None, by cell
    crashes: Counter[str] = field(default_factory=Counter)
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def open(self) -> dict[UUID, str]:
        """The cells that have not ended, by the ids of their runs."""
        return {run.id: cell for cell, run in self.runs.items() if cell not in self.ends}


def sweep_in_pool(
    pool: str, grid: str, overrides: list[str], selection: Selection, record: SweepRecord
) -> list[str]:
    """Submit the cells that are not finished, wait for all, and return the failures.

    What ended with an error in an earlier attempt runs again. A server that does not answer is
    waited for. Raises BadInput where the pool cannot take the sweep.
    """
    api = configured_api()
    data = prepare_dataset(selection.grid.data, home(), selection.grid.evaluation_sets)
    land_dataset(data)
    record.use(data)

    with answering(api), prefect_client(api, retries=RETRIES) as client:
        sweep = PooledSweep.of(client, pool, grid, overrides, selection, data.name)
        followed = _Followed(sweep, record, submit(client, sweep))
        for cell, run in followed.runs.items():
            if _has_to_run_again(run):
                run_again(client, run)
                followed.runs[cell] = client.read_flow_run(run.id)

    _follow(api, followed)
    # A limit that stays is clutter and no harm: the next run of the cell uses it.
    with contextlib.suppress(NoAnswer), prefect_client(api) as client:
        forget_leases(client, map(sweep.key, selection.cells))

    failures = [failure for failure in followed.ends.values() if failure]
    record.finish(len(failures), [time_of(run) for run in followed.runs.values()])
    return failures


def _follow(api: str, followed: _Followed) -> None:
    """Look at the runs until all have ended, and keep the sweep's progress artifact up to date."""
    progress = publisher(f"sweep {followed.sweep.selection.grid.name}")
    while True:
        try:
            # Without retries, since the next look is one.
            with prefect_client(api) as client:
                _look(client, followed)
        except NoAnswer as error:
            warning = f"The Prefect server at {api} does not answer ({error}); waiting for it."
            publish("pool", StepWarning(warning))

        progress(ProgressReport("experiments", len(followed.ends), len(followed.runs)))
        if not followed.open:
            return

        time.sleep(POLL_SECONDS)


def _has_to_run_again(run: FlowRun) -> bool:
    """Whether a run of an earlier attempt failed, or what it landed is nowhere any more."""
    if run.state is None or not run.state.is_final():
        return False
    if not run.state.is_completed():
        return True
    with contextlib.suppress(TriageError):  # said when the run is looked at
        take_over(landed_ids(run))
    return bool(absent_from_warehouse(landed_ids(run)))


def _look(client: SyncPrefectClient, followed: _Followed) -> None:
    """Note which runs have ended, show what the others do, and see to lost ones."""
    open_runs = followed.open
    runs = read_runs(client, list(open_runs))
    workers = {
        w.name: w.status.value for w in client.read_workers_for_work_pool(followed.sweep.pool)
    }

    active_runs = []
    for run in runs:
        cell = open_runs[run.id]
        followed.runs[cell] = run
        if run.state is None:
            continue

        is_taken = run.state.is_running() or run.state.is_pending()
        # A run without a worker's name has just been taken.
        if is_taken and workers.get(worker_of(run), ONLINE) == ONLINE:
            active_runs.append(run)
        elif is_taken or run.state.is_crashed():
            _see_to_lost(client, followed, cell, run)
        elif run.state.is_final():
            _end(client, followed, cell, run)

    for id in open_runs.keys() - {run.id for run in runs}:
        _fail(followed, open_runs[id], TriageError(GONE), [])

    for id, report in read_progress(client, active_runs).items():
        publish(f"experiment {open_runs[id]}", report)

    cells = set(followed.open.values())
    unfinished = {
        queue_of(spec.model.name, spec.precision.name)
        for spec in followed.sweep.selection.cells
        if spec.cell_id in cells
    }
    online = sum(status == ONLINE for status in workers.values())
    share_out(client, followed.sweep.pool, online, followed.limits, unfinished)


def _see_to_lost(client: SyncPrefectClient, followed: _Followed, cell: str, run: FlowRun) -> None:
    """Let another machine take a run whose process or machine is gone."""
    message = run.state.message if run.state else None
    failure = TriageError(f"It was lost {CRASHES + 1} times; last: {message}")
    place = worker_of(run) or "its worker"
    _repeat(client, followed, cell, run, f"{cell} was lost with {place} and runs again.", failure)


def _repeat(
    client: SyncPrefectClient,
    followed: _Followed,
    cell: str,
    run: FlowRun,
    warning: str,
    failure: TriageError,
) -> None:
    """Let a run be taken again, unless that was done too often: then it is a failure."""
    followed.crashes[cell] += 1
    if followed.crashes[cell] > CRASHES:
        _fail(followed, cell, failure, [])
        return
    publish(f"experiment {cell}", StepWarning(warning))
    run_again(client, run)


def _end(client: SyncPrefectClient, followed: _Followed, cell: str, run: FlowRun) -> None:
    """Note how a cell ended: what it landed belongs to the sweep."""
    ids = landed_ids(run)
    try:
        take_over([*models_of(run), *ids])
    except BrokenFolder as error:  # the machine that has it, or makes it again, shares it again
        warning = f"A result of {cell} was damaged in the shared folder; it runs again. {error}"
        _repeat(client, followed, cell, run, warning, error)
        return
    except TriageError as error:
        _fail(followed, cell, error, ids)
        return

    if run.state is None or not run.state.is_completed():
        _fail(followed, cell, failure_of(cell, run), ids)
        return
    if absent_from_warehouse(ids):
        message = (
            f"It has landed, but its results are on {worker_of(run)} and not in "
            f"{warehouse_path()}; name the folder that all machines share in TRIAGE_SHARED, on "
            "each of them."
        )
        _fail(followed, cell, TriageError(message), [])
        return

    followed.ends[cell] = None
    followed.record.add(ids)
    of_cell = tuple(id for id in ids if id.startswith(f"{cell}-"))
    publish(f"land {cell}", ExperimentLanded(of_cell))


def _fail(followed: _Followed, cell: str, error: TriageError, ids: list[str]) -> None:
    followed.ends[cell] = f"{cell}: {error}"
    followed.record.add(ids)
    publish(f"land {cell}", ExperimentFailed(str(error), error))


def failure_of(cell: str, run: FlowRun) -> TriageError:
    """The error of a run that did not complete, of the class that its label names."""
    state = run.state
    text = state.message if state and state.message else f"it ended as {state and state.name}."
    kind = FIXABLE.get(str(run.labels.get(ERROR, "")), TriageError)
    return kind(text.removeprefix(f"{cell}: "))


def models_of(run: FlowRun) -> list[str]:
    """The models of which a run has landed results, by its label."""
    return str(run.labels.get(MODELS, "")).split()


def time_of(run: FlowRun) -> RunTime:
    """How long a run and its steps took, by its labels; nothing where it was lost."""
    seconds = (float(run.labels.get(name, 0.0)) for name in (RUN_SECONDS, STEP_SECONDS))
    return RunTime(*seconds)


def landed_ids(run: FlowRun) -> list[str]:
    """What a run has landed, by its label."""
    return str(run.labels.get(LANDED, "")).split()
