"""One experiment as a flow of its own: the unit that a work pool hands to a machine."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.chains import finish_all, submit_experiments
from flows.events import told
from flows.form import GridName, ModelName, PrecisionName, RecipeName
from flows.selection import Narrowing, select
from flows.sweep import ONE_AT_A_TIME
from flows.tags import label_run
from tasks.landing import some_results_wait
from tasks.spec import Seed
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
) -> State[Any]:
    """Train, evaluate and land one cell of a grid.

    Args:
        model: base model, e.g. smollm2-135m
        bits: 4 or 8
        recipe: a recipe of the grid
        seed: a seed of the grid
        grid: demo, paper, tuned, study, ablation, smoke, or the path of a grid file
        overrides: key=value changes of the grid, e.g. recipe.iterations=50
        precision: a precision of the grid, e.g. bf16 or mxfp4, instead of bits
    """
    if precision is None:
        narrowing = Narrowing(models=[model], bits=[bits], recipes=[recipe])
    else:
        narrowing = Narrowing(models=[model], precisions=[precision], recipes=[recipe])
    selection = select(grid, overrides, narrowing).with_seed(seed)
    refuse_unusable()
    label_run(selection, name=selection.cells[0].title)

    with told(selection.cells):
        failures = finish_all(submit_experiments(selection))
    if failures:
        return Failed(message=failures[0])
    where = "has landed and will be loaded into" if some_results_wait() else "is in"
    return Completed(message=f"{selection.cells[0].cell_id} {where} the warehouse")
