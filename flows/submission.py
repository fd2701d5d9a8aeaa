"""Submits the steps of a sweep: what its experiments share once, and then a chain for each, so that
results land one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from flows.chains import Chain, Extra, Shared, Step, SubmittedSweep
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
from tasks.move import move_adapter
from tasks.precisions import Precision
from tasks.prepare import prepare
from tasks.quantize import quantize
from tasks.spec import BaseModelSpec, ExperimentSpec
from tasks.studies import SweepRecord
from tasks.train import train


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
    data: Step = prepare.submit(grid.data, grid.evaluation_sets, selection.prompts)
    sweep = SubmittedSweep(data, SweepRecord(grid, len(selection.cells)))
    untrained = threads.results.submit(baselines, {"scoring": grid.scoring, "data": data})
    sweep.parts.append(Extra("baselines", untrained))

    variants = _Variants(selection, sweep, threads)
    for spec in selection.cells:
        chain = _submit_chain(spec, variants.of(spec), variants.limits, threads)
        sweep.parts.append(chain)
        # After the variant's first trained result: it is what people wait for.
        variants.score_untuned(spec)
        if grid.evaluation_sets:
            names = [entry.name for entry in grid.evaluation_sets]
            at_most = variants.limits.of_scoring(spec)
            sweep.parts.append(_evaluation_sets(chain, names, at_most))

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


def _submit_chain(
    spec: ExperimentSpec, shared: Shared, limits: TimeLimits, threads: ThreadsBeside
) -> Chain:
    variant = shared.variant
    data = shared.data
    training: Step = train.submit(spec, variant, data, limits.of_training(spec))
    scores: Step = evaluate.submit(spec, training, variant, data, limits.of_scoring(spec))
    landing = threads.results.submit(
        land,
        {"spec": spec, "training": training, "scores": scores, "variant": variant, "data": data},
    )

    return Chain(spec, shared, training, scores, landing)


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
            )
            yield Extra(f"move {spec.cell_id} to {precision.name}", step)
