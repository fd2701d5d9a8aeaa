"""Experiments as chains of Prefect steps: train -> evaluate -> land, so that results land one by
one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from flows.selection import Selection, moves_of
from flows.threads import ThreadsBeside
from flows.time_limits import TimeLimits
from tasks.acquire import acquire
from tasks.baselines import baselines, zero_shot
from tasks.convert import convert
from tasks.evaluate import evaluate
from tasks.evaluation_sets import evaluate_sets
from tasks.fidelity import fidelity
from tasks.land import land
from tasks.landing import absent_from_warehouse, is_landed, land_failure, load_the_rest
from tasks.models.convert import base_folder
from tasks.move import move_adapter
from tasks.precisions import Precision
from tasks.prepare import prepare
from tasks.progress import publish
from tasks.quantize import quantize
from tasks.runtime import fork_server
from tasks.runtime.child import stop_children
from tasks.runtime.errors import BadInput, TriageError, disk_full, is_disk_full
from tasks.runtime.events import ExperimentFailed, ExperimentLanded, ExtraFinished, StepWarning
from tasks.runtime.store import home
from tasks.spec import BaseModelSpec, ExperimentSpec
from tasks.studies import SweepRecord
from tasks.train import train
from warehouse.connect import warehouse_path

# A PrefectFuture. As an argument of a later step Prefect replaces it by its value, so the
# signatures of steps name the value's type, and a future has no type here.
Step = Any


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
    """The steps of one experiment after those that it shares with others.

    `most_layers`: see TrainingJob.
    """

    spec: ExperimentSpec
    shared: Shared
    training: Step
    scores: Step
    landing: Step
    most_layers: int | None = None

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
        bases = [base_folder(step.result(), home()) for step in self.bases if _has_ended_well(step)]
        variants = [step.result() for step in self.variants if _has_ended_well(step)]
        return sorted({folder.name for folder in [*bases, *variants]})


def submit_experiments(
    selection: Selection,
    threads: ThreadsBeside,
    other_variants: Collection[tuple[str, str]] = (),
    most_layers: int | None = None,
) -> SubmittedSweep:
    """Submit the whole grid; experiments share their base model's conversion and their variant.

    `threads`: where the steps run that need no accelerator. `other_variants`: model and precision
    of further variants of the sweep, whose experiments run elsewhere: adapters are moved to them,
    too. `most_layers`: see TrainingJob, where the selection is a part of a sweep.

    No Prefect tags: for a tagged task Prefect asks for a slot of each tag's limit, which takes
    0.3 s a task.
    """
    grid = selection.grid
    data: Step = prepare.submit(grid.data, grid.evaluation_sets, selection.prompts)
    sweep = SubmittedSweep(data, SweepRecord(grid, len(selection.cells)))
    untrained = threads.results.submit(baselines, {"scoring": grid.scoring, "data": data})
    sweep.parts.append(Extra("baselines", untrained))

    variants = _Variants(selection, sweep, threads)
    for spec in selection.cells:
        layers = most_layers or selection.most_layers(spec)
        chain = _submit_chain(spec, layers, variants.of(spec), variants.limits, threads)
        sweep.parts.append(chain)
        # After the variant's first trained result: it is what people wait for.
        variants.score_untuned(spec)
        if grid.evaluation_sets:
            names = [entry.name for entry in grid.evaluation_sets]
            limit = variants.limits.of_scoring(spec)
            sweep.parts.append(_evaluation_sets(chain, names, limit))

    moves = (
        list(_moves(sweep.chains, variants, other_variants)) if grid.scoring.move_adapters else []
    )
    sweep.parts += variants.fidelities()
    sweep.parts += moves
    sweep.bases = list(variants.bases.values())
    sweep.variants = list(variants.variants.values())

    return sweep


def _has_ended_well(step: Step) -> bool:
    return bool(step.state.is_completed())


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


def _submit_chain(
    spec: ExperimentSpec,
    most_layers: int,
    shared: Shared,
    limits: TimeLimits,
    threads: ThreadsBeside,
) -> Chain:
    variant = shared.variant
    data = shared.data
    training: Step = train.submit(spec, variant, data, limits.of_training(spec), most_layers)
    scores: Step = evaluate.submit(
        spec, training, variant, data, limits.of_scoring(spec), most_layers
    )
    landing = threads.results.submit(
        land,
        {"spec": spec, "training": training, "scores": scores, "variant": variant, "data": data},
    )

    return Chain(spec, shared, training, scores, landing, most_layers)


def _evaluation_sets(chain: Chain, names: list[str], at_most: float) -> Extra:
    """The grid's further evaluation sets, scored once the experiment itself is in the warehouse."""
    step: Step = evaluate_sets.submit(
        chain.spec,
        chain.training,
        chain.scores,
        chain.shared.variant,
        chain.shared.data,
        names,
        at_most,
        chain.most_layers,
        return_state=False,
        wait_for=[chain.landing],
    )
    return Extra(f"evaluation sets of {chain.spec.cell_id}", step)


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
                chain.most_layers,
            )
            yield Extra(f"move {spec.cell_id} to {precision.name}", step)


def finish_all(sweep: SubmittedSweep) -> list[str]:
    """Wait for every step; returns the failures. An interruption ends the steps' processes at once.

    What the warehouse does not hold at the end is a failure, whatever the steps say, unless another
    program keeps it out.
    """
    of_chains: list[str | None] = []
    of_extras: list[str | None] = []
    with fork_server.kept():
        try:
            # As they run: what has landed belongs to the study of a
            # sweep that is then stopped, too.
            for part in sweep.parts:
                if isinstance(part, Chain):
                    of_chains.append(_finish_chain(part, sweep.record))
                else:
                    of_extras.append(_finish_extra(part))
                _note(sweep, part)
        except BaseException:  # Ctrl-C, or Prefect's own signal for SIGTERM
            stop_children()
            sweep.record.keep()
            raise

    failures = [failure for failure in of_chains + of_extras if failure]
    sweep.record.finish(len(failures))
    if warning := load_the_rest():
        publish("loading", StepWarning(warning))

    return failures + _lost_results(sweep)


def _note(sweep: SubmittedSweep, part: Chain | Extra) -> None:
    """Note what has landed, as a part of the sweep's study."""
    if sweep.data.state.is_completed():
        sweep.record.use(sweep.data.result())
    sweep.record.add(part.ids)


def _lost_results(sweep: SubmittedSweep) -> list[str]:
    """A sentence for each part that has landed and is not in the warehouse."""
    absent = set(absent_from_warehouse([id for part in sweep.parts for id in part.ids]))
    return [
        f"{part.name}: its results landed but are not in {warehouse_path()} (was it deleted "
        "meanwhile?); run the same command again."
        for part in sweep.parts
        if absent.intersection(part.ids)
    ]


def warn_of_damage(refusals: dict[str, str]) -> None:
    """Say which of the landing folders that were refused this sweep did not write again."""
    for id, reason in refusals.items():
        if not is_landed(id):
            remedy = (
                "Its figures come back with the sweep or benchmark that made them; "
                f"delete {home() / 'landing' / id} to do without them."
            )
            publish(f"landing {id}", StepWarning(f"{reason} {remedy}"))


def _finish_extra(extra: Extra) -> str | None:
    """Wait for an extra; None, or its name with the reason. One that never ran has no failure of
    its own.
    """
    extra.step.wait()
    if error := failure_of(extra.step):
        failure = f"{extra.name}: {error}"
        publish(extra.name, StepWarning(failure))
        return failure

    if extra.step.state.is_completed():
        publish(extra.name, ExtraFinished(tuple(extra.ids)))
    return None


def _finish_chain(chain: Chain, record: SweepRecord) -> str | None:
    """Wait for one experiment; None if it landed, else its name with the reason, which lands too."""
    chain.landing.wait()
    title = f"land {chain.spec.cell_id}"
    errors = (failure_of(step) for step in chain.steps)
    error = next((error for error in errors if error is not None), None)
    if error is None and chain.landing.state.is_completed():
        publish(title, ExperimentLanded((chain.landing.result(),)))
        return None

    # Whatever the reason is: what has not landed is not done.
    state = chain.landing.state.name
    error = error or TriageError(f"It never landed: its last step ended as {state}.")
    publish(title, ExperimentFailed(str(error), error))
    _land_failure(chain, error, record)

    return f"{chain.spec.cell_id}: {error}"


def _land_failure(chain: Chain, error: Exception, record: SweepRecord) -> None:
    """Record a failed experiment, where its variant and its cases are known."""
    if not all(step.state.is_completed() for step in chain.shared.steps):
        return

    variant = chain.shared.variant.result()
    data = chain.shared.data.result()
    try:
        training = land_failure(chain.spec, variant, data, error)
        record.add([training])
    except Exception as problem:  # no reason to stop the other experiments
        publish(f"land {chain.spec.cell_id}", StepWarning(f"Not recorded: {problem}"))


def failure_of(future: Step) -> Exception | None:
    """The exception of a step that failed, crashed or was cancelled, or None.

    A step that never ran because of another step has none.
    """
    state = future.state
    if not (state.is_failed() or state.is_crashed() or state.is_cancelled()):
        return None
    result = future.result(raise_on_failure=False)
    error = result if isinstance(result, Exception) else RuntimeError(str(result))
    return disk_full(home()) if is_disk_full(error) and not isinstance(error, BadInput) else error
