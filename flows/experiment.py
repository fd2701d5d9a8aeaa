"""One experiment as a flow of its own: the unit that a work pool hands to a machine."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import psutil
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry, Completed, Crashed, Failed

from flows.outcomes import finish_all, label_run, tell_of
from flows.pool import RESULT, PooledCell, PooledResult, versions_here
from flows.selection import (
    GridName,
    ModelName,
    Narrowing,
    PrecisionName,
    RecipeName,
    Selection,
    select,
)
from flows.sweep import ONE_AT_A_TIME, submit_experiments, threads_beside
from tasks.grids.grid import load_grid
from tasks.landing import grid_digest, share_the_rest, some_results_wait
from tasks.progress import listening
from tasks.runtime.children import step_seconds
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.events import Event, ExperimentFailed
from tasks.runtime.home import home
from tasks.runtime.locks import ACCELERATOR, at_work, remove_abandoned
from tasks.runtime.store import PLACES
from tasks.spec import Seed
from warehouse.health import refuse_unusable

GIVEN_BACK = timedelta(minutes=10)  # for which a run waits for a machine of the sweep's versions


@flow(
    name="experiment", flow_run_name="{model} {bits}bit {recipe} s{seed}", task_runner=ONE_AT_A_TIME
)
def experiment(
    model: ModelName = "smollm2-135m",
    bits: Literal[4, 8] = 4,
    recipe: RecipeName = "ultra_safe",
    seed: Seed = 42,
    grid: GridName = "paper",
    overrides: list[str] | None = None,
    precision: PrecisionName | None = None,
    pooled: PooledCell | None = None,
) -> State[Any]:
    """Train, evaluate and land one cell of a grid.

    Args:
        model: base model, e.g. smollm2-135m
        bits: 4 or 8
        recipe: a recipe of the grid
        seed: a seed of the grid
        grid: demo, paper, tuned, study, study_gemma, registered, ablation, smoke, or the path of a grid file
        overrides: key=value changes of the grid, e.g. recipe.iterations=50
        precision: a precision of the grid, e.g. bf16 or mxfp4, instead of bits
        pooled: set by a sweep in a work pool, which waits for this run
    """
    narrowing = Narrowing(
        models=[model],
        bits=[bits] if precision is None else None,
        recipes=[recipe],
        seeds=[seed],
        precisions=None if precision is None else [precision],
        cells=[pooled.cell] if pooled else None,
    )
    if pooled is None:
        return _run(select(grid, overrides, narrowing))

    try:
        _tell(PooledResult())
        _give_back_unless_equal(pooled.versions)
        if grid_digest(load_grid(grid, overrides)) != pooled.grid_digest:
            raise BadInput(
                "The grid on this machine is not the one that the sweep began with: it was edited "
                "meanwhile, or another file is at its path here; run the sweep again."
            )

        # All workers of a machine take turns at its accelerator. Set to nothing is not set.
        os.environ[ACCELERATOR] = os.environ.get(ACCELERATOR) or "0"
        share_the_rest()
        return _run(select(grid, overrides, narrowing), pooled)
    except TriageError as error:
        _tell(PooledResult(error=type(error).__name__))
        # A state rather than an exception: the sweep reads this message.
        return Failed(message=f"{pooled.cell}: {error}")
    # Steps report their own failures. This is Prefect's, e.g. of a machine that was cut off from
    # the server between two steps: the sweep lets the experiment run again.
    except Exception as error:
        return Crashed(message=f"{pooled.cell}: {error}")


def _run(selection: Selection, pooled: PooledCell | None = None) -> State[Any]:
    # Of runs that were killed here: no sweep runs in a worker's home.
    remove_abandoned(home(), *PLACES)
    refuse_unusable()
    spec = selection.cells[0]
    label_run(selection, name=spec.title)

    other_variants = [(spec.model.name, name) for name in pooled.precisions] if pooled else []
    errors = [""]

    def note(title: str, event: Event) -> None:
        if isinstance(event, ExperimentFailed):
            errors.append(type(event.error).__name__)

    with at_work(), tell_of(selection.cells), listening(note), threads_beside() as threads:
        submitted = submit_experiments(selection, threads, other_variants)
        failures = finish_all(submitted)

    if pooled is not None:
        ids = submitted.record.ids
        _tell(PooledResult(landed=ids, models=submitted.model_ids, error=errors[-1]))

    if failures:
        return Failed(message=failures[0])

    state = "has landed and will be loaded into" if some_results_wait() else "is in"
    return Completed(message=f"{spec.cell_id} {state} the warehouse")


def _give_back_unless_equal(versions_of_sweep: dict[str, str]) -> None:
    """End this run, for another machine to take, where this one would give other figures."""
    local_versions = versions_here()
    differences = ", ".join(
        f"{name} {local_versions.get(name, 'none')} instead of {value}"
        for name, value in versions_of_sweep.items()
        if local_versions.get(name) != value
    )
    if not differences:
        return

    state: State[Any] = AwaitingRetry(
        scheduled_time=datetime.now(UTC) + GIVEN_BACK,
        message=f"The machine {socket.gethostname()} gives its run back, since it has "
        f"{differences}; bring it to the version of the sweep.",
    )
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(str(flow_run.id)), state, force=True)
    # Prefect's own way to end a process whose run goes on elsewhere.
    raise Abort(str(state.message))


def _tell(result: PooledResult) -> None:
    """Note a result on this run, with who runs it and how long it has taken."""
    seconds = (time.time() - psutil.Process().create_time(), step_seconds())
    complete = result.model_copy(update={"machine": socket.gethostname(), "seconds": seconds})
    with get_client(sync_client=True) as client:
        labels: dict[str, Any] = {RESULT: complete.model_dump_json()}
        client.update_flow_run_labels(UUID(str(flow_run.id)), labels)
