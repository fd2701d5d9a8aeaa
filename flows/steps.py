"""The steps of a sweep: what its experiments share once, and then a chain for each, train ->
evaluate -> land, so that results land one by one. How long a step may take, and on which thread it
runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.plan import PlannedCell, Steps, assumed_speeds, set_sizes, work_left
from flows.selection import Selection, moves_of
from tasks.acquire import acquire
from tasks.baselines import baselines, zero_shot
from tasks.convert import convert
from tasks.corpus.prepare import prepare_dataset
from tasks.evaluate import evaluate, evaluate_sets
from tasks.fidelity import fidelity
from tasks.land import land
from tasks.models.manifest import base_folder
from tasks.move import move_adapter
from tasks.precisions import Precision
from tasks.prepare import prepare
from tasks.quantize import quantize
from tasks.runtime.errors import TriageError
from tasks.runtime.home import home
from tasks.runtime.locks import at_work
from tasks.spec import BaseModelSpec, ExperimentSpec
from tasks.studies import SweepRecord
from tasks.train import train

# A PrefectFuture. As an argument of a later step Prefect replaces it by its value, so the
# signatures of steps name the value's type, and a future has no type here.
Step = Any

# Prefect's own default has no bound: all trainings of a grid would run at once.
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)  # of a flow: the accelerator's thread


@dataclass(frozen=True)
class Shared:
    """The steps that the experiments on one variant share, in the order in which they run."""

    data: Step
    source: Step
    base: Step
    variant: Step

    @property
    def steps(self) -> list[Step]:
        return [self.data, self.source, self.base, self.variant]


@dataclass(frozen=True)
class Chain:
    """The steps of one experiment after those that it shares with others."""

    spec: ExperimentSpec
    shared: Shared
    training: Step
    scores: Step
    landing: Step

    @property
    def steps(self) -> list[Step]:
        """All steps that the experiment needs, in the order in which they run."""
        return [*self.shared.steps, self.training, self.scores, self.landing]

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

    `record`: what makes its results belong to its study. `bases`, `variants`: its models.
    """

    data: Step
    record: SweepRecord
    parts: list[Chain | Extra] = field(default_factory=list)
    bases: list[Step] = field(default_factory=list)
    variants: list[Step] = field(default_factory=list)

    @property
    def chains(self) -> list[Chain]:
        """The experiments, in the order of the grid."""
        return [part for part in self.parts if isinstance(part, Chain)]

    @property
    def model_ids(self) -> list[str]:
        """The base models and variants that were made or found, as they land."""
        bases, variants = (
            [step.result() for step in steps if step.state.is_completed()]
            for steps in (self.bases, self.variants)
        )
        folders = [*(base_folder(source, home()) for source in bases), *variants]
        return sorted({folder.name for folder in folders})


@dataclass(frozen=True)
class ThreadsBeside:
    """Task runners of one thread each, for steps that need no accelerator.

    Weights are fetched while another model trains. Baselines and landings do not wait for a slow
    download, and so have a thread of their own.
    """

    downloads: Any
    results: Any


@contextmanager
def threads_beside() -> Iterator[ThreadsBeside]:
    """The threads, until the block has ended and their last step with it."""
    # Copies, since a task runner that was started cannot be started a second time.
    with ONE_AT_A_TIME.duplicate() as downloads, ONE_AT_A_TIME.duplicate() as results:
        yield ThreadsBeside(downloads, results)


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

    @property
    def of_other_steps(self) -> float:
        """Of a step of which the plan expects nothing, such as a conversion."""
        return self._selection.grid.time_limit.seconds(0.0)

    def of_training(self, spec: ExperimentSpec) -> float:
        """Of the training of an experiment."""
        expected = self._expected(spec)
        return self._selection.grid.time_limit.seconds(expected.preparing + expected.training)

    def of_scoring(self, spec: ExperimentSpec) -> float:
        """Of a step that scores an experiment, or its untuned model, on any of its sets."""
        expected = self._expected(spec)
        whole = expected.preparing + expected.scoring + expected.dropout
        return self._selection.grid.time_limit.seconds(whole)

    def _expected(self, spec: ExperimentSpec) -> Steps:
        work = work_left(self._selection, [PlannedCell(spec)], self._sizes)
        return work.operations.at(assumed_speeds())


def submit_experiments(
    selection: Selection,
    threads: ThreadsBeside,
    other_variants: Collection[tuple[str, str]] = (),
) -> SubmittedSweep:
    """Submit the whole grid; experiments share their base model's conversion and their variant.

    `threads`: where the steps run that need no accelerator. `other_variants`: model and precision
    of further variants of the sweep, whose experiments run elsewhere: adapters are moved to them,
    too.

    No Prefect tags: for a tagged task Prefect asks for a slot of each tag's limit, which takes
    0.3 s a task.
    """
    grid = selection.grid
    names = [entry.name for entry in grid.evaluation_sets]
    data: Step = prepare.submit(grid.data, grid.evaluation_sets, selection.prompts)
    sweep = SubmittedSweep(data, SweepRecord(grid, len(selection.cells)))
    untrained = threads.results.submit(baselines, {"scoring": grid.scoring, "data": data})
    sweep.parts.append(Extra("baselines", untrained))

    variants = _Variants(selection, sweep, threads)
    limits = variants.limits
    for spec in selection.cells:
        shared = variants.of(spec)
        variant = shared.variant
        at_most = limits.of_scoring(spec)
        training: Step = train.submit(spec, variant, data, limits.of_training(spec))
        scores: Step = evaluate.submit(spec, training, variant, data, at_most)
        landed = {"spec": spec, "training": training, "scores": scores}
        landing = threads.results.submit(land, landed | {"variant": variant, "data": data})
        sweep.parts.append(Chain(spec, shared, training, scores, landing))

        # After the variant's first trained result: it is what people wait for.
        variants.score_untuned(spec)
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
    moves = (
        list(_moves(sweep.chains, variants, other_variants)) if grid.scoring.move_adapters else []
    )
    sweep.parts += variants.fidelities()
    sweep.parts += moves
    sweep.bases = list(variants.bases.values())
    sweep.variants = list(variants.variants.values())

    return sweep


class _Variants:
    """Submits each base model and each of its variants once, when the first experiment needs it."""

    def __init__(self, selection: Selection, sweep: SubmittedSweep, threads: ThreadsBeside) -> None:
        self.selection = selection
        # In the order of the grid, so that the first model's weights do not wait for the others'.
        self.sources: dict[str, Step] = {
            model.name: threads.downloads.submit(acquire, {"model": model})
            for model in selection.models
        }
        self.sweep = sweep
        self.limits = TimeLimits(selection)
        self.bases: dict[str, Step] = {}
        self.variants: dict[tuple[str, str], Step] = {}
        self.scored_untuned: set[tuple[str, str, str]] = set()

    def of(self, spec: ExperimentSpec) -> Shared:
        """The steps up to the variant of an experiment."""
        model = spec.model
        if model.name not in self.bases:
            self.bases[model.name] = convert.submit(
                model, self.sources[model.name], self.limits.of_other_steps
            )

        return Shared(
            self.sweep.data,
            self.sources[model.name],
            self.bases[model.name],
            self.at(model, spec.precision),
        )

    def at(self, model: BaseModelSpec, precision: Precision) -> Step:
        """The variant of a base model, whose conversion is submitted, at a precision."""
        key = (model.name, precision.name)
        if key not in self.variants:
            group_size = self.selection.grid.training.group_size
            base = self.bases[model.name]
            self.variants[key] = quantize.submit(
                model, base, precision, group_size, self.limits.of_other_steps
            )

        return self.variants[key]

    def score_untuned(self, spec: ExperimentSpec) -> None:
        """Submit the zero-shot baseline of an experiment's variant, once for each prompt."""
        model = spec.model
        key = (model.name, spec.precision.name, spec.prompt.title)
        if key in self.scored_untuned:
            return

        self.scored_untuned.add(key)
        grid = self.selection.grid.model_copy(update={"prompt": spec.prompt})
        variant = self.at(model, spec.precision)
        untuned = zero_shot.submit(
            model, spec.precision, grid, variant, self.sweep.data, self.limits.of_scoring(spec)
        )
        name = f"zero-shot {model.name} {spec.precision.name} {spec.prompt.title}".strip()
        self.sweep.parts.append(Extra(name, untuned))

    def fidelities(self) -> Iterator[Extra]:
        """One step per base model, after its experiments: these have stored the prefix that it
        reads.
        """
        for model in self.selection.models:
            variants: Step = [step for key, step in self.variants.items() if key[0] == model.name]
            step = fidelity.submit(
                model,
                self.bases[model.name],
                self.selection.grid,
                variants,
                self.sweep.data,
                max(self.limits.of_scoring(s) for s in self.selection.cells if s.model == model),
            )
            yield Extra(f"fidelity {model.name}", step)


def _moves(
    chains: list[Chain], variants: _Variants, other_variants: Collection[tuple[str, str]]
) -> Iterator[Extra]:
    """Every adapter at the other precisions that the grid names, whose variants are made for it; or
    at the other bit width, where the sweep has that variant.
    """
    grid = variants.selection.grid
    of_sweep = {*variants.variants, *other_variants}
    for chain in chains:
        spec = chain.spec
        for precision in moves_of(grid, spec, of_sweep):
            step = move_adapter.submit(
                spec,
                chain.training,
                chain.scores,
                precision,
                variants.at(spec.model, precision),
                chain.shared.data,
                [entry.name for entry in grid.evaluation_sets],
                variants.limits.of_scoring(spec),
            )
            yield Extra(f"move {spec.cell_id} to {precision.name}", step)
