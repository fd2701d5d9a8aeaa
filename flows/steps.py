"""The steps of a sweep: what its experiments share once, and then a chain for each, train ->
evaluate -> land, so that results land one by one. How long a step may take, and on which thread it
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.plan import PlannedCell, assumed_speeds, set_sizes, work_left
from flows.selection import Selection, moves_of
from tasks.baselines import baselines, fidelity, zero_shot
from tasks.corpus.prepare import prepare_dataset
from tasks.experiment import evaluate, evaluate_sets, land, move_adapter, train
from tasks.inputs import acquire, convert, prepare, quantize
from tasks.landing import SweepRecord
from tasks.models.manifest import base_folder
from tasks.precisions import Precision
from tasks.runtime.errors import TriageError
from tasks.runtime.home import home
from tasks.runtime.locks import at_work
from tasks.spec import BaseModelSpec, ExperimentSpec

# A PrefectFuture. As an argument of a later step Prefect replaces it by its value, so the
# signatures of steps name the value's type, and a future has no type here.
Step = Any

# Prefect's own default has no bound: all trainings of a grid would run at once.
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)  # of a flow: the accelerator's thread


@dataclass(frozen=True)
class Chain:
    """The steps of one experiment, in the order in which they run: those up to its variant, which
    others share, and its own.
    """

    spec: ExperimentSpec
    data: Step
    source: Step
    base: Step
    variant: Step
    training: Step
    scores: Step
    landing: Step

    @property
    def shared(self) -> list[Step]:
        return [self.data, self.source, self.base, self.variant]

    @property
    def name(self) -> str:
        return self.spec.cell_id

    @property
    def ids(self) -> list[str]:
        """What landed of the experiment; empty where it did not."""
        if not self.landing.state.is_completed():
            return []
        return [self.training.result(), self.landing.result()]


@dataclass(frozen=True)
class Extra:
    """A step that is no experiment: baselines, further evaluation sets, fidelity, moved adapters."""

    name: str
    step: Step

    @property
    def ids(self) -> list[str]:
        """What landed of the step; empty where it did not finish."""
        if not self.step.state.is_completed():
            return []
        ids = self.step.result()
        return [ids] if isinstance(ids, str) else list(ids)


@dataclass
class SubmittedSweep:
    """The futures of a sweep: a chain per experiment, and the extras beside them, as submitted.

    `record`: what makes its results belong to its study. `bases`, `variants`: its models, by name,
    and by name and precision.
    """

    data: Step
    record: SweepRecord
    parts: list[Chain | Extra] = field(default_factory=list)
    bases: dict[str, Step] = field(default_factory=dict)
    variants: dict[tuple[str, str], Step] = field(default_factory=dict)

    @property
    def model_ids(self) -> list[str]:
        """The base models and variants that were made or found, as they land."""
        bases, variants = (
            [step.result() for step in steps.values() if step.state.is_completed()]
            for steps in (self.bases, self.variants)
        )
        folders = [*(base_folder(source, home()) for source in bases), *variants]
        return sorted({folder.name for folder in folders})


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


@flow(name="variant", flow_run_name="{spec.title}", task_runner=ONE_AT_A_TIME)
def make_variant(spec: ExperimentSpec) -> None:
    """Make the variant of an experiment that another machine has trained, as its sweep made it."""
    with at_work():
        source = acquire(spec.model)
        base = convert(spec.model, source)
        quantize(spec.model, base, spec.precision, spec.training.group_size)


class TimeLimits:
    """The limits of a selection's steps, in seconds.

    What the steps of an experiment share counts for each of them, since each may be the first that
    needs it.
    """

    def __init__(self, selection: Selection) -> None:
        grid = selection.grid
        if grid.data.source != "embedded":
            # So that own cases are counted where no command has prepared them: a run of the UI.
            with suppress(TriageError):  # which the step `prepare` says
                prepare_dataset(grid.data, home(), grid.evaluation_sets)

        self._selection = selection
        self._sizes = set_sizes(grid)
        # Of a step of which the plan expects nothing, such as a conversion.
        self.of_other_steps = grid.time_limit.seconds(0.0)

    def of_training(self, spec: ExperimentSpec) -> float:
        """Of the training of an experiment."""
        return self._of(spec, "preparing", "training")

    def of_scoring(self, spec: ExperimentSpec) -> float:
        """Of a step that scores an experiment, or its untuned model, on any of its sets."""
        return self._of(spec, "preparing", "scoring", "dropout")

    def _of(self, spec: ExperimentSpec, *kinds: str) -> float:
        operations, *_ = work_left(self._selection, [PlannedCell(spec)], self._sizes)
        expected = operations.at(assumed_speeds())
        return self._selection.grid.time_limit.seconds(sum(getattr(expected, k) for k in kinds))


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
    untrained = results.submit(baselines, {"scoring": grid.scoring, "data": data})
    sweep.parts.append(Extra("baselines", untrained))

    # In the order of the grid, so that the first model's weights do not wait for the others'.
    sources: dict[str, Step] = {
        model.name: downloads.submit(acquire, {"model": model}) for model in selection.models
    }
    limits = TimeLimits(selection)

    def variant_of(model: BaseModelSpec, precision: Precision) -> Step:
        """The variant, submitted once, when the first experiment needs it."""
        key = (model.name, precision.name)
        if model.name not in sweep.bases:
            source = sources[model.name]
            sweep.bases[model.name] = convert.submit(model, source, limits.of_other_steps)
        if key not in sweep.variants:
            sweep.variants[key] = quantize.submit(
                model,
                sweep.bases[model.name],
                precision,
                grid.training.group_size,
                limits.of_other_steps,
            )
        return sweep.variants[key]

    scored_untuned: set[tuple[str, str, str]] = set()
    for spec in selection.cells:
        model = spec.model
        variant = variant_of(model, spec.precision)
        at_most = limits.of_scoring(spec)
        training: Step = train.submit(spec, variant, data, limits.of_training(spec))
        scores: Step = evaluate.submit(spec, training, variant, data, at_most)
        landed = {"spec": spec, "training": training, "scores": scores}
        landing = results.submit(land, landed | {"variant": variant, "data": data})
        shared = (data, sources[model.name], sweep.bases[model.name], variant)
        sweep.parts.append(Chain(spec, *shared, training, scores, landing))

        # After the variant's first trained result: it is what people wait for. Once for each prompt.
        key = (model.name, spec.precision.name, spec.prompt.title)
        if key not in scored_untuned:
            scored_untuned.add(key)
            own = grid.model_copy(update={"prompt": spec.prompt})
            untuned = zero_shot.submit(model, spec.precision, own, variant, data, at_most)
            sweep.parts.append(Extra(f"zero-shot {' '.join(key)}".strip(), untuned))

        if names:  # once the experiment itself is in the warehouse
            step: Step = evaluate_sets.submit(
                spec,
                training,
                scores,
                variant,
                data,
                names,
                at_most,
                return_state=False,
                wait_for=[landing],
            )
            sweep.parts.append(Extra(f"evaluation sets of {spec.cell_id}", step))

    # Before the fidelities, which measure the variants that moves may add, too.
    moves: list[Extra] = []
    if grid.scoring.move_adapters:
        moves += _moves(selection, sweep, variant_of, limits, other_variants)

    # One for each base model, after its experiments: these have stored the prefix that it reads.
    for model in selection.models:
        step = fidelity.submit(
            model,
            sweep.bases[model.name],
            grid,
            [variant for key, variant in sweep.variants.items() if key[0] == model.name],
            data,
            max(limits.of_scoring(spec) for spec in selection.cells if spec.model == model),
        )
        sweep.parts.append(Extra(f"fidelity {model.name}", step))

    sweep.parts += moves
    return sweep


def _moves(
    selection: Selection,
    sweep: SubmittedSweep,
    variant_of: Callable[[BaseModelSpec, Precision], Step],
    limits: TimeLimits,
    other_variants: Collection[tuple[str, str]],
) -> Iterator[Extra]:
    """Every adapter at the other precisions that the grid names, whose variants are made for it; or
    at the other bit width, where the sweep has that variant.
    """
    grid = selection.grid
    of_sweep = {*sweep.variants, *other_variants}
    for chain in [part for part in sweep.parts if isinstance(part, Chain)]:
        spec = chain.spec
        for precision in moves_of(grid, spec, of_sweep):
            step = move_adapter.submit(
                spec,
                chain.training,
                chain.scores,
                precision,
                variant_of(spec.model, precision),
                chain.data,
                [entry.name for entry in grid.evaluation_sets],
                limits.of_scoring(spec),
            )
            yield Extra(f"move {spec.cell_id} to {precision.name}", step)
