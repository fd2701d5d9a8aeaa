"""The sweep: grid -> data -> variants -> experiments -> comparison.

Experiments are chains (train, evaluate, land), not stages: mapping stage after stage would run
every training before the first evaluation, and a crash at experiment 59 would leave nothing in the
warehouse. One worker thread per accelerator, so steps never share it; downloads, baselines and
landings run beside it. With a work pool the cells are runs of the deployment `experiment`, on
whatever machines work for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import State, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.compare import publish_comparison, publish_report
from flows.outcomes import (
    Part,
    Step,
    SubmittedSweep,
    evaluations_of_sweep,
    finish_all,
    label_run,
    tell_of,
    tell_sweep_finished,
    warn_of_damage,
)
from flows.plan import SCORING, TRAINING, time_limits
from flows.pool import sweep_in_pool
from flows.report.figures import counted
from flows.selection import EVERYTHING, GridName, Narrowing, Selection, moves_of, select
from tasks.baselines import baselines, fidelity, zero_shot
from tasks.experiment import choose_again, evaluate, evaluate_sets, land, move_adapter, train
from tasks.inputs import acquire, convert, prepare, quantize
from tasks.landing import SweepRecord, refill_warehouse, some_results_wait
from tasks.precisions import Precision
from tasks.progress import ProgressArtifact
from tasks.runtime.home import home
from tasks.runtime.locks import at_work, is_at_work
from tasks.spec import BaseModelSpec
from tasks.with_linear import with_linear
from warehouse.connect import warehouse_path

UNFINISHED = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
]
# Prefect's own default has no bound: all trainings of a grid would run at once.
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)  # of a flow: the accelerator's thread


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
        grid: demo, paper, tuned, study, study_gemma, registered, ablation, smoke, or the path of a grid file
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
            bar = ProgressArtifact(f"sweep {selection.grid.name}", stays=True)
            failures = finish_all(submitted, bar.show)
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

    is_, has = ("is", "has") if count == 1 else ("are", "have")
    where = f"{has} landed and will be loaded into" if waits else f"{is_} in"
    return Completed(message=f"{counted(count, 'experiment')} {where} the warehouse")


@contextmanager
def threads_beside() -> Iterator[tuple[Any, Any]]:
    """Task runners of one thread each, for downloads and for results, until the block has ended and
    their last step with it.

    Weights are fetched while another model trains. Baselines and landings do not wait for a slow
    download, and so have a thread of their own.
    """
    # Copies, since a task runner that was started cannot be started a second time.
    with ONE_AT_A_TIME.duplicate() as downloads, ONE_AT_A_TIME.duplicate() as results:
        yield downloads, results


def submit_experiments(
    selection: Selection,
    threads: tuple[Any, Any],
    other_variants: Collection[tuple[str, str]] = (),
) -> SubmittedSweep:
    """Submit the whole grid; experiments share their base model's conversion and their variant.

    `threads`: see threads_beside. `other_variants`: model and precision of further variants of the
    sweep, whose experiments run elsewhere: adapters are moved to them, too.

    No Prefect tags: for a tagged task Prefect asks for a slot of each tag's limit, which takes
    0.3 s a task.
    """
    grid = selection.grid
    names = [entry.name for entry in grid.evaluation_sets]
    downloads, results = threads
    data: Step = prepare.submit(grid.data, grid.evaluation_sets, selection.prompts)
    sweep = SubmittedSweep(data, SweepRecord(grid, len(selection.cells)))
    sweep.record.begin()
    untrained = results.submit(
        baselines,
        {"scoring": grid.scoring, "data": data, "vital_signs": grid.prompt.vital_signs},
    )
    sweep.parts.append(Part("baselines", [untrained]))

    # In the order of the grid, so that the first model's weights do not wait for the others'.
    sources: dict[str, Step] = {
        model.name: downloads.submit(acquire, {"model": model}) for model in selection.models
    }
    limits = time_limits(selection)
    of_conversion = grid.time_limit.seconds(0.0)  # of which a plan expects nothing

    def variant_of(model: BaseModelSpec, precision: Precision) -> Step:
        """The variant, submitted once, when the first experiment needs it."""
        key = (model.name, precision.name)
        if model.name not in sweep.bases:
            sweep.bases[model.name] = convert.submit(model, sources[model.name], of_conversion)
        if key not in sweep.variants:
            base = sweep.bases[model.name]
            group_size = grid.training.group_size
            sweep.variants[key] = quantize.submit(model, base, precision, group_size, of_conversion)
        return sweep.variants[key]

    scored_untuned: set[tuple[str, str, str]] = set()
    for spec in selection.cells:
        model = spec.model
        variant = variant_of(model, spec.precision)
        of_scoring = limits(spec, SCORING)
        training: Step = train.submit(spec, variant, data, limits(spec, TRAINING))
        scores: Step = evaluate.submit(spec, training, variant, data, of_scoring)
        landed = {"spec": spec, "training": training, "scores": scores}
        landing = results.submit(land, landed | {"variant": variant, "data": data})
        shared = [data, sources[model.name], sweep.bases[model.name], variant]
        sweep.parts.append(Part(spec.cell_id, [training, scores, landing], shared, spec))

        # After the variant's first trained result: it is what people wait for. Once for each prompt.
        key = (model.name, spec.precision.name, spec.prompt.title)
        if grid.scoring.untuned and key not in scored_untuned:
            scored_untuned.add(key)
            own = grid.model_copy(update={"prompt": spec.prompt})
            untuned = zero_shot.submit(model, spec.precision, own, variant, data, of_scoring)
            sweep.parts.append(Part(f"zero-shot {' '.join(key)}".strip(), [untuned]))

        scored: list[Step] = [landing]
        if names:  # once the experiment itself is in the warehouse
            step: Step = evaluate_sets.submit(
                spec,
                training,
                scores,
                variant,
                data,
                names,
                of_scoring,
                return_state=False,
                wait_for=[landing],
            )
            sweep.parts.append(Part(f"evaluation sets of {spec.cell_id}", [step]))
            scored.append(step)

        if grid.scoring.with_linear:
            of_both = landed | {"variant": variant, "data": data, "sets": names}
            joined = results.submit(with_linear, of_both, wait_for=scored)
            sweep.parts.append(Part(f"{spec.cell_id} with linear", [joined]))

    # Every adapter at the other precisions, whose variants are made for it where the grid names them;
    # before the fidelities, which measure these variants, too.
    moves = []
    if grid.scoring.move_adapters:
        variants = {*sweep.variants, *other_variants}
        chains = [(part.spec, *part.own[:2]) for part in sweep.parts if part.spec is not None]
        for spec, training, scores in chains:
            of_scoring = limits(spec, SCORING)
            for precision in moves_of(grid, spec, variants):
                variant = variant_of(spec.model, precision)
                moved = (spec, training, scores, precision, variant, data, names, of_scoring)
                name = f"move {spec.cell_id} to {precision.name}"
                kept = move_adapter.submit(*moved)
                again = choose_again.submit(*moved, return_state=False, wait_for=[kept])
                moves += [Part(name, [kept]), Part(f"{name}, threshold chosen again", [again])]

    # One for each base model, after its experiments: these have cached the activations that it reads.
    for model in selection.models if grid.scoring.fidelity_cases else ():
        step = fidelity.submit(
            model,
            sweep.bases[model.name],
            grid,
            [variant for key, variant in sweep.variants.items() if key[0] == model.name],
            data,
            max(limits(spec, SCORING) for spec in selection.cells if spec.model == model),
        )
        sweep.parts.append(Part(f"fidelity {model.name}", [step]))

    sweep.parts += moves
    return sweep


@flow(name="nightly", flow_run_name="night {grid}")
def nightly(grid: GridName = "demo") -> State[Any]:
    """Start a sweep of a grid, unless one still goes on: then this run is cancelled.

    Args:
        grid: demo, paper, tuned, study, study_gemma, registered, ablation, smoke, or the path of a grid file
    """
    named_sweep = {"name": {"any_": ["sweep"]}}
    due = {
        "state": {"type": {"any_": UNFINISHED}},
        "expected_start_time": {"before_": datetime.now(UTC)},
    }
    with get_client(sync_client=True) as client:
        unfinished = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate(named_sweep),
            deployment_filter=DeploymentFilter.model_validate(named_sweep),
            flow_run_filter=FlowRunFilter.model_validate(due),
            limit=1,
        )

    if unfinished:
        message = f"{unfinished[0].name} has not ended, so this night is left out."
        return Cancelled(message=message)
    if is_at_work():
        message = f"A sweep or an experiment goes on in {home()}, so this night is left out."
        return Cancelled(message=message)

    # Queued and left alone: this run ends at once, and the sweep is no part of it.
    run_deployment("sweep/sweep", parameters={"grid": grid}, timeout=0, as_subflow=False)
    return Completed(message=f"A sweep is queued with the grid {grid}.")
