"""The sweep: grid -> data -> variants -> experiments -> comparison.

Experiments are chains (train, evaluate, land), not stages: mapping stage after stage would run
every training before the first evaluation, and a crash at experiment 59 would leave nothing in the
warehouse. One worker thread per accelerator, so steps never share it; downloads, baselines and
landings run beside it. With a work pool the cells are runs of the deployment `experiment`, on
whatever machines work for it.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.compare import publish_comparison, publish_report
from flows.outcomes import (
    evaluations_of_sweep,
    finish_all,
    label_run,
    tell_of,
    tell_sweep_finished,
    warn_of_damage,
)
from flows.pool import sweep_in_pool
from flows.report.figures import counted
from flows.selection import EVERYTHING, GridName, Narrowing, select
from flows.steps import ONE_AT_A_TIME, submit_experiments, threads_beside
from tasks.landing import SweepRecord, refill_warehouse, some_results_wait
from tasks.runtime.locks import at_work
from warehouse.connect import warehouse_path


@flow(name="sweep", flow_run_name="sweep {grid}", task_runner=ONE_AT_A_TIME)
def sweep(
    grid: GridName = "demo",
    overrides: list[str] | None = None,
    only: Narrowing = EVERYTHING,
    pool: str | None = None,
) -> State[Any]:
    """Run every experiment of a grid that is not finished yet, land each in the warehouse, and
    compare.

    Completed only if every planned experiment has landed; one failure never stops the others.

    Args:
        grid: demo, paper, tuned, study, study_gemma, ablation, smoke, or the path of a grid file
        overrides: key=value changes of the grid, e.g. recipe.iterations=50
        only: which of the grid's experiments
        pool: the work pool whose machines run the experiments, instead of this process
    """
    selection = select(grid, overrides, only)
    label_run(selection, name=f"sweep {selection.grid.name}")
    refusals = refill_warehouse()

    if pool is None:
        with at_work(), tell_of(selection.cells), threads_beside() as threads:
            submitted = submit_experiments(selection, threads)
            failures = finish_all(submitted)
        record = submitted.record
    else:
        record = SweepRecord(selection.grid, len(selection.cells))
        with at_work():
            failures = sweep_in_pool(pool, grid, overrides or [], selection, record)

    warn_of_damage(refusals)
    exists = warehouse_path().exists()
    waits = some_results_wait()
    if not waits:
        # Artifacts of this run, so that its tab has them.
        ids = evaluations_of_sweep(record.id) if exists else None
        publish_comparison(ids, selection.grid.name)

    count = len(selection.cells)
    tell_sweep_finished(selection.grid.name, count, len(failures))
    if exists and not waits:
        publish_report(selection.grid.name)

    if failures:
        heading = f"{counted(len(failures), 'failure')} in a sweep of {count} experiments: "
        return Failed(message=heading + " | ".join(failures))

    states = ("has", "have") if waits else ("is", "are")
    where = "landed and will be loaded into" if waits else "in"
    state = f"{counted(count, 'experiment')} {states[count != 1]} {where} the warehouse"
    return Completed(message=state)
