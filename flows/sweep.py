"""The sweep: grid -> data -> variants -> experiments -> comparison.

Experiments are chains (train, evaluate, land), not stages: mapping stage after stage would run every training before
the first evaluation, and a crash at experiment 59 would leave nothing in the warehouse. One worker thread per
accelerator, so steps never share it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.chains import finish_all, submit_experiments
from flows.compare import compare
from flows.selection import select
from flows.tags import tag_run
from tasks.landing import refill_warehouse

ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)


@flow(name="sweep", flow_run_name="sweep {grid}", task_runner=ONE_AT_A_TIME)
def sweep(
    grid: str = "demo", overrides: list[str] | None = None, models: list[str] | None = None,
    bits: list[Literal[4, 8]] | None = None, recipes: list[str] | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
) -> State[Any]:  # fmt: skip
    """Run every experiment of a grid that is not finished yet, land each in the warehouse, and compare.

    Completed only if every planned experiment has landed; one failure never stops the others.

    Args:
        grid: demo, paper, long, ablation, smoke, or the path of a grid file
        overrides: key=value changes of the grid, e.g. recipe.iterations=50
        models: only these base models
        bits: only 4 or only 8
        recipes: only these recipes of the grid
        limit: only the first so many experiments
    """
    selection = select(grid, overrides, models, bits, recipes, limit)
    tag_run(selection.cells)
    refill_warehouse()
    chains = submit_experiments(selection)
    failures = finish_all(chains)
    compare()
    if failures:
        what = f"{len(failures)} failure{'' if len(failures) == 1 else 's'} in a sweep of {len(chains)} experiments: "
        return Failed(message=what + " | ".join(failures))
    done = "1 experiment is" if len(chains) == 1 else f"{len(chains)} experiments are"
    return Completed(message=f"{done} in the warehouse")
