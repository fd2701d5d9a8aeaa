"""One experiment as a flow of its own: the unit that a work pool hands to a machine."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Crashed, Failed

from flows.outcomes import finish_all, label_run, tell_of
from flows.pool.cell import PooledCell, label_results, leased, noted_errors
from flows.selection import (
    GridName,
    ModelName,
    Narrowing,
    PrecisionName,
    RecipeName,
    Selection,
    select,
)
from flows.steps import ONE_AT_A_TIME, submit_experiments, threads_beside
from tasks.grids.grid import load_grid
from tasks.landing import share_the_rest, some_results_wait
from tasks.runtime.errors import TriageError
from tasks.runtime.home import home
from tasks.runtime.locks import at_work
from tasks.runtime.store import remove_all_abandoned
from tasks.spec import Seed
from tasks.studies import grid_digest
from warehouse.health import refuse_unusable


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
        grid: demo, paper, tuned, study, study_gemma, ablation, smoke, or the path of a grid file
        overrides: key=value changes of the grid, e.g. recipe.iterations=50
        precision: a precision of the grid, e.g. bf16 or mxfp4, instead of bits
        pooled: set by a sweep in a work pool, which waits for this run
    """
    narrowing = Narrowing(
        models=[model],
        bits=[bits] if precision is None else (),
        recipes=[recipe],
        precisions=() if precision is None else [precision],
        cells=[pooled.cell] if pooled else (),
    )
    if pooled is None:
        return _run(select(grid, overrides, narrowing).with_seed(seed))

    try:
        pooled.refuse_other(grid_digest(load_grid(grid, overrides)))
        share_the_rest()
        with leased(pooled.key):
            return _run(select(grid, overrides, narrowing).with_seed(seed), pooled)
    except TriageError as error:
        label_results(error=error)
        # A state rather than an exception: the sweep reads this message (follow.failure_of).
        return Failed(message=f"{pooled.cell}: {error}")
    # Steps report their own failures. This is Prefect's, e.g. of a machine that was cut off from
    # the server between two steps: the sweep lets the experiment run again.
    except Exception as error:
        return Crashed(message=f"{pooled.cell}: {error}")


def _run(selection: Selection, pooled: PooledCell | None = None) -> State[Any]:
    remove_all_abandoned(home())  # of runs that were killed here: no sweep runs in a worker's home
    refuse_unusable()
    spec = selection.cells[0]
    label_run(selection, name=spec.title)

    other_variants = [(spec.model.name, name) for name in pooled.precisions] if pooled else []
    with (
        at_work(),
        tell_of(selection.cells),
        noted_errors() as errors,
        threads_beside() as threads,
    ):
        submitted = submit_experiments(selection, threads, other_variants)
        failures = finish_all(submitted)

    if pooled is not None:
        error = errors[0] if errors else None
        label_results(submitted.record.ids, submitted.model_ids, error)

    if failures:
        return Failed(message=failures[0])

    state = "has landed and will be loaded into" if some_results_wait() else "is in"
    return Completed(message=f"{spec.cell_id} {state} the warehouse")
