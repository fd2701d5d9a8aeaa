"""Queues flow runs again whose process is gone, as after a power cut.

Prefect keeps them Running for ever. Only runs of our work pool, only where no process of this
machine has the run's id, and not those that a worker on another machine has taken. Running one
again repeats no finished work: every step is content-addressed, and a training resumes from its
checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from deployments.prefect_api import prefect_client
from deployments.worker_names import WORKER, is_elsewhere, other_workers, worker_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

RUN_ID = "PREFECT__FLOW_RUN_ID"  # in the environment of a flow run's process
CLOCKS_DIFFER = timedelta(hours=1)  # at most, between the machines of a fleet


def due() -> datetime:
    """A time for runs that are to start at once: past by the clock of every machine.

    A machine takes what is due by its own clock, Prefect's default is now by that of whoever asks.
    """
    return datetime.now(UTC) - CLOCKS_DIFFER


def queue_lost_runs(api: str, pool: str, queue: str | None) -> list[str]:
    """Queue the lost runs of a queue of `pool`, or of all its queues, on the server at `api` again;
    returns their names.

    Of one queue alone, whose worker does not run: a run that it has just taken has no process yet.
    Raises NoAnswer.
    """
    with prefect_client(api) as client:
        lost_runs = _lost_runs(client, pool, queue)
        for run in lost_runs:
            _queue_again(client, run)
        return [run.name for run in lost_runs]


def _lost_runs(client: SyncPrefectClient, pool: str, queue: str | None) -> list[FlowRun]:
    """Unfinished runs of the queue without a process on this machine that are not of another one."""
    runs = _unfinished_runs(client, pool)
    if queue is None:
        runs = [run for run in runs if not _is_just_taken(run)]
    else:
        runs = [run for run in runs if run.work_queue_name in (queue, None)]
    if not runs:
        return []

    # Processes are looked at after the runs, so that one that has started meanwhile is seen.
    with_process = {environment.get(RUN_ID) for _, environment in process_environments()}
    without_process = [run for run in runs if str(run.id) not in with_process]
    other_names = other_workers(client, pool) if without_process else []
    return [run for run in without_process if not is_elsewhere(worker_of(run), other_names)]


def _is_just_taken(run: FlowRun) -> bool:
    """Whether a worker has taken a run and not yet named itself: it may be any machine's."""
    # due() lies an hour back: a run that is Pending for longer was not just taken.
    return (
        run.state is not None
        and run.state.is_pending()
        and not worker_of(run)
        and run.state.timestamp > due()
    )


def _unfinished_runs(client: SyncPrefectClient, pool: str) -> list[FlowRun]:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    unfinished = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    by_state = FlowRunFilterState(type=FlowRunFilterStateType(any_=unfinished))
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=by_state),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )


def _queue_again(client: SyncPrefectClient, run: FlowRun) -> None:
    """Let a run be taken again; one that was being cancelled becomes cancelled."""
    from prefect.states import Cancelled

    if run.state is not None and run.state.is_cancelling():
        client.set_flow_run_state(run.id, Cancelled(), force=True)
    else:
        run_again(client, run)


def run_again(client: SyncPrefectClient, run: FlowRun) -> None:
    """Reschedule a run: finished steps are not repeated, and a training goes on from its
    checkpoint.

    Its worker's name goes first: the next worker takes a run some requests before it names itself.
    """
    from prefect.states import AwaitingRetry

    client.update_flow_run_labels(run.id, {WORKER: ""})
    client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=due()), force=True)


def end_runs(api: str, home: Path) -> None:
    """Kill the processes of flow runs that report to `api` from this TRIAGE_HOME.

    Their steps end too.
    """
    own_environment = {"PREFECT_API_URL": api, "TRIAGE_HOME": str(home)}.items()
    for process, environment in process_environments():
        if RUN_ID not in environment or not own_environment <= environment.items():
            continue
        with contextlib.suppress(psutil.Error):
            # Steps inherit the environment; they leave by themselves when the run is gone.
            if "prefect.engine" in " ".join(process.cmdline()):
                process.kill()


def process_environments() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """The running processes whose environment this user may read, each with it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            yield process, process.environ()
