"""The steps of a sweep: what its experiments share once, and then a chain for each, train ->
evaluate -> land, so that results land one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.plan import SCORING, TRAINING, time_limits
from flows.selection import Selection, moves_of
from tasks.baselines import baselines, fidelity, zero_shot
from tasks.experiment import evaluate, evaluate_sets, land, move_adapter, train
from tasks.inputs import acquire, convert, prepare, quantize
from tasks.landing import SweepRecord
from tasks.models.manifest import base_folder
from tasks.precisions import Precision
from tasks.runtime.home import home
from tasks.runtime.locks import at_work
from tasks.spec import BaseModelSpec, ExperimentSpec

# A PrefectFuture. As an argument of a later step Prefect replaces it by its value, so the
# signatures of steps name the value's type, and a future has no type here.
Step = Any

# Prefect's own default has no bound: all trainings of a grid would run at once.
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)  # of a flow: the accelerator's thread


@dataclass(frozen=True)
class Part:
    """What a sweep waits for: an experiment, or a step that is none (baselines, further evaluation
    sets, fidelity, a moved adapter).

    `own`: its step, which returns what landed; of an experiment training, scores and landing.
    `shared`: the steps before those of an experiment: data, source, base, variant.
    """

    name: str
    own: list[Step]
    shared: list[Step] = field(default_factory=list)
    spec: ExperimentSpec | None = None

    @property
    def has_landed(self) -> bool:
        return bool(self.own[-1].state.is_completed())

    @property
    def ids(self) -> list[str]:
        """What landed of it; empty where its last step did not finish."""
        if not self.has_landed:
            return []
        last = self.own[-1].result()
        if self.spec is not None:
            return [self.own[0].result(), last]
        return [last] if isinstance(last, str) else list(last)


@dataclass
class SubmittedSweep:
    """The futures of a sweep, as submitted.

    `record`: what makes its results belong to its study. `bases`, `variants`: its models, by name,
    and by name and precision.
    """

    data: Step
    record: SweepRecord
    parts: list[Part] = field(default_factory=list)
    bases: dict[str, Step] = field(default_factory=dict)
    variants: dict[tuple[str, str], Step] = field(default_factory=dict)

    @property
    def model_ids(self) -> list[str]:
        """The base models and variants that were made or found, as they land."""
        bases = [step.result() for step in self.bases.values() if step.state.is_completed()]
        variants = [step.result() for step in self.variants.values() if step.state.is_completed()]
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
    sweep.parts.append(Part("baselines", [untrained]))

    # In the order of the grid, so that the first model's weights do not wait for the others'.
    sources: dict[str, Step] = {
        model.name: downloads.submit(acquire, {"model": model}) for model in selection.models
    }
    limits = time_limits(selection)
    of_conversion = limits(selection.cells[0], [])

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
        if key not in scored_untuned:
            scored_untuned.add(key)
            own = grid.model_copy(update={"prompt": spec.prompt})
            untuned = zero_shot.submit(model, spec.precision, own, variant, data, of_scoring)
            sweep.parts.append(Part(f"zero-shot {' '.join(key)}".strip(), [untuned]))

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

    # Every adapter at the other precisions, whose variants are made for it where the grid names them;
    # before the fidelities, which measure these variants, too.
    moves = []
    if grid.scoring.move_adapters:
        variants = {*sweep.variants, *other_variants}
        for part in [part for part in sweep.parts if part.spec is not None]:
            spec = part.spec
            training, scores, _ = part.own
            for precision in moves_of(grid, spec, variants):
                variant = variant_of(spec.model, precision)
                of_scoring = limits(spec, SCORING)
                step = move_adapter.submit(
                    spec, training, scores, precision, variant, data, names, of_scoring
                )
                moves.append(Part(f"move {spec.cell_id} to {precision.name}", [step]))

    # One for each base model, after its experiments: these have cached the activations that it reads.
    for model in selection.models:
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
