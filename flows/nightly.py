"""The nightly sweep, unless one still waits or runs: runs do not pile up behind a long study."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelled, Completed

from flows.selection import GridName
from tasks.runtime.home import home
from tasks.runtime.locks import is_at_work

SWEEP = "sweep/sweep"
UNFINISHED = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
]


@flow(name="nightly", flow_run_name="night {grid}")
def nightly(grid: GridName = "demo") -> State[Any]:
    """Start a sweep of a grid, unless one still goes on: then this run is cancelled.

    Args:
        grid: demo, paper, tuned, study, study_gemma, ablation, smoke, or the path of a grid file
    """
    if (sweep := _unfinished_sweep()) is not None:
        return Cancelled(message=f"{sweep.name} has not ended, so this night is left out.")
    if is_at_work():
        message = f"A sweep or an experiment goes on in {home()}, so this night is left out."
        return Cancelled(message=message)

    # Queued and left alone: this run ends at once, and the sweep is no part of it.
    run_deployment(SWEEP, parameters={"grid": grid}, timeout=0, as_subflow=False)
    return Completed(message=f"{SWEEP} is queued with the grid {grid}.")


def _unfinished_sweep() -> FlowRun | None:
    """A sweep of `sweep/sweep` that is due and has not ended."""
    flow_name, _, deployment = SWEEP.partition("/")
    due = {
        "state": {"type": {"any_": UNFINISHED}},
        "expected_start_time": {"before_": datetime.now(UTC)},
    }
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate({"name": {"any_": [flow_name]}}),
            deployment_filter=DeploymentFilter.model_validate({"name": {"any_": [deployment]}}),
            flow_run_filter=FlowRunFilter.model_validate(due),
            limit=1,
        )

    return runs[0] if runs else None
