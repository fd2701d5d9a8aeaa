"""The night's sweep, unless a sweep still goes on: nights do not pile up behind a study of days."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelled, Completed

from flows.form import GridName

SWEEP = "sweep/local"
UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED]


@flow(name="nightly", flow_run_name="night {grid}")
def nightly(grid: GridName = "demo") -> State[Any]:
    """Start a sweep of a grid, unless one still goes on: then this run is cancelled.

    Args:
        grid: demo, paper, tuned, study, study_gemma, ablation, smoke, or the path of a grid file
    """
    if (active_run := _running_sweep()) is not None:
        return Cancelled(message=f"{active_run.name} still goes on, so this night is left out.")
    run_deployment(SWEEP, parameters={"grid": grid}, timeout=0, as_subflow=False)
    return Completed(message=f"{SWEEP} is queued with the grid {grid}.")


def _running_sweep() -> FlowRun | None:
    """A sweep of `sweep/local` that a worker has taken and not ended."""
    flow_name, _, deployment = SWEEP.partition("/")
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[deployment])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
            ),
            limit=1,
        )

    return runs[0] if runs else None
