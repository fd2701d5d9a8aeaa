"""What a sweep would do, before any download: its cells and what is done of them, time and disk.

Time is operations, counted from the shapes of the models and the sizes of the sets, by the speed of
a matrix product, times the share of it that each step reached when the stored demo was run. Figures
to plan with: a busy machine takes longer.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.selection import Selection, moves_of
from tasks.corpus.case import SETS
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import dataset_folder, prepare_dataset, stored_or_temporary
from tasks.corpus.reading.sources import check_local, is_hub
from tasks.corpus.splits import check_examples
from tasks.corpus.vignettes.generator import SIZES
from tasks.corpus.vignettes.sets import EVALUATION_SIZES, added_to_valid
from tasks.identity import scores_from, training_from
from tasks.models.manifest import VariantManifest, variant_folder
from tasks.models.sizes import ModelShape, is_known, known_shape
from tasks.models.sources.fetch import stored
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.device import noted, speed_key
from tasks.runtime.errors import SourceUnavailable, TriageError
from tasks.runtime.home import home
from tasks.runtime.shared import shared_place
from tasks.runtime.store import intact_manifest
from tasks.spec import Data, EvaluationSet, ExperimentSpec, Grid
from tasks.tuning.memory import pays, saving
from warehouse.connect import listed, warehouse_path
from warehouse.query import query_rows

ADAPTER_BYTES = 20e6
TYPICAL = "smollm2-135m"  # in shape, of models whose shape is not known
BYTES_OF = {"float32": 4, "bfloat16": 2}
INSTRUCTION_TOKENS = 50  # the same in all prompts, run once a batch
OWN_TOKENS_PER_CASE = 70  # without the instruction
TRAINING = ("preparing", "training")  # kinds of work of a step that trains ...
SCORING = ("preparing", "scoring", "dropout")  # ... and of one that scores


@dataclass(frozen=True)
class Steps:
    """One figure for each kind of work: operations, operations a second, or seconds.

    `preparing`: activations of the blocks below the first trained one, once a variant; `scoring`:
    each set once, by trained and by untuned models; `dropout`: the Monte Carlo passes.
    """

    preparing: float = 0.0
    training: float = 0.0
    scoring: float = 0.0
    dropout: float = 0.0

    def __add__(self, other: Steps) -> Steps:
        return Steps(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def at(self, speeds: Steps) -> Steps:
        """Seconds of so many operations."""
        return Steps(*(a / b for a, b in zip(astuple(self), astuple(speeds), strict=True)))

    @property
    def total(self) -> float:
        return sum(astuple(self))


# Of the speed of a matrix product: the steps of the stored demo, on two cores with MKL. On Metal,
# where nobody has run it, as much as a training on a CPU.
REACHED = {"cpu": Steps(0.62, 0.51, 0.52, 0.47), "metal": Steps(0.51, 0.51, 0.51, 0.51)}


def speeds_at(gflops: float) -> Steps:
    """Operations a second of a machine whose matrix products run at `gflops`."""
    return Steps(*(share * gflops * 1e9 for share in astuple(REACHED[backend().name])))


def assumed_speeds() -> Steps:
    """Operations a second without a measurement: one figure for every step of this backend."""
    return Steps(*[backend().planned_gflops * 1e9] * 4)


def this_machine() -> tuple[str, Steps]:
    """This machine in words, and its operations a second: by the speed that its home has noted, or
    a probe of a second in a child process, on a backend of REACHED; else assumed.
    """
    if backend().name in REACHED:
        with TemporaryDirectory() as folder, contextlib.suppress(TriageError):
            probe = "tasks.runtime.device:run"
            gflops = noted(speed_key()) or run_child(probe, {}, Path(folder))["device"]["gflops"]
            return f"{gflops:.0f} GFLOP/s", speeds_at(gflops)

    return f"not measured: assumed for {backend().name}", assumed_speeds()


@dataclass(frozen=True)
class PlannedCell:
    """One experiment of a plan.

    `trained`: whether the adapter that a sweep looks for exists; `scored`: whether it has scores on
    every set of the grid; `seconds`: about how long the rest takes.
    """

    spec: ExperimentSpec
    trained: bool = False
    scored: bool = False
    seconds: float = 0.0

    @property
    def state(self) -> str:
        return "done" if self.scored else "to score" if self.trained else "to train"


@contextlib.contextmanager
def planned_cases(selection: Selection) -> Iterator[Path | None]:
    """The folder of the selection's prepared cases: that of the home, or a temporary one, since a
    plan writes nothing. Raises BadInput for cases that a sweep would refuse.

    None where their source does not answer, and for embedded cases that the home lacks, unless
    finished trainings have to be compared with them: to write them takes seconds.
    """
    grid = selection.grid
    sources: list[Data | EvaluationSet] = [grid.data, *grid.evaluation_sets]
    for source in sources:
        check_local(source)

    folder_of = grid.data, home(), grid.evaluation_sets
    is_embedded = all(source.source == "embedded" for source in sources)
    has_trainings = any(map(finished_trainings, selection.cells))
    if is_embedded and not has_trainings and not intact_manifest(dataset_folder(*folder_of)):
        yield None
        return

    with contextlib.ExitStack() as cleanup:
        folder = None
        with contextlib.suppress(SourceUnavailable):
            folder = cleanup.enter_context(stored_or_temporary(*folder_of))
            check_examples(folder, selection.prompts)
        yield folder


def set_sizes(grid: Grid, cases: Path | None = None) -> dict[str, int]:
    """How many cases each set has: as they are prepared in `cases` or in the home; else as many as
    embedded ones, which is a guess for own cases. Raises BadInput for missing files.
    """
    sources: list[Data | EvaluationSet] = [grid.data, *grid.evaluation_sets]
    if cases is None and not any(is_hub(source.source, source.folder) for source in sources):
        cases = dataset_folder(grid.data, home(), grid.evaluation_sets)
    if cases is not None and intact_manifest(cases):
        prepared = DatasetManifest.read(cases).sets
        return {name: prepared[name].cases for name in dict.fromkeys((*SETS, *prepared))}

    sizes: dict[str, int] = {name: grid.data.sizes.get(name, SIZES[name]) for name in SETS}
    sizes["valid"] += added_to_valid(grid.data.contrast_share)
    for name, limit in grid.data.limits.items():
        sizes[name] = min(sizes[name], limit)
    for entry in grid.evaluation_sets:
        sizes[entry.name] = entry.cases or EVALUATION_SIZES.get(entry.name, sizes["test"])
    return sizes


def plan_cells(
    selection: Selection, cases: Path | None, speeds: Steps | None = None
) -> list[PlannedCell]:
    """Every chosen cell, with what is done of it and how long the rest may take.

    `cases`: see planned_cases; without them, and where the variant is not on this machine, nothing
    counts as trained.
    """
    sizes = set_sizes(selection.grid, cases)
    dataset = DatasetManifest.read(cases) if cases else None
    planned = []
    for spec in selection.cells:
        seconds = seconds_of(spec, sizes, speeds)
        weights = None
        if source := stored(spec.model, home()):
            folder = variant_folder(source, home(), spec.precision, spec.training.group_size)
            weights = VariantManifest.read_if_complete(folder)
        if dataset is None or weights is None:
            planned.append(PlannedCell(spec, seconds=seconds.total))
            continue

        training = home() / "experiments" / training_from(spec, weights, dataset)
        if not intact_manifest(training):
            planned.append(PlannedCell(spec, seconds=seconds.total))
            continue

        ids = [scores_from(spec, training.name, dataset, name) for name in dataset.evaluation_sets]
        scored = all(intact_manifest(training / "scores" / scores) for scores in ids)
        rest = 0.0 if scored else seconds.total - seconds.training
        planned.append(PlannedCell(spec, trained=True, scored=scored, seconds=rest))

    return planned


def finished_trainings(spec: ExperimentSpec) -> list[Path]:
    """Folders of a cell's finished trainings, whatever cases and weights they were made with."""
    folders = (home() / "experiments").glob(f"{spec.cell_id}-*")
    return [folder for folder in folders if intact_manifest(folder)]


def trained_elsewhere(selection: Selection) -> str | None:
    """A sentence on the selection's seeds whose results another machine landed: what trains them again
    adds no seed to an estimate. None where there are none.
    """
    absent = {spec.cell_id: spec for spec in selection.cells if not finished_trainings(spec)}
    # Adapters are brought from a place that machines share.
    if not absent or not warehouse_path().exists() or shared_place():
        return None

    statement = f"""
        SELECT recipe, seed, cell_id, learning_rate, batch_size, rank, scale, iterations
        FROM experiment
        WHERE status = 'completed' AND cell_id IN {listed(absent)}
    """
    again: dict[str, set[str]] = defaultdict(set)
    with contextlib.suppress(TriageError):  # a sweep trains on while another program holds the file
        for recipe, seed, cell, *settings in query_rows(statement).rows:
            own = absent[str(cell)].recipe
            of_recipe = [own.learning_rate, own.batch_size, own.rank, own.scale, own.iterations]
            if settings == of_recipe:
                again[str(recipe)].add(str(seed))
    if not again:
        return None

    names = "; ".join(f"{recipe}: {', '.join(sorted(seeds))}" for recipe, seeds in again.items())
    return (
        f"The warehouse has the results of seeds that this trains again ({names}), since their "
        "adapters are on another machine. A seed counts once; for a further one give a seed that is "
        "not there yet, e.g. --set 'recipe.seeds=[...]'."
    )


def _shape(model: str) -> ModelShape:
    """The shape of a base model, or a typical one where it is not known."""
    return known_shape(model if is_known(model) else TYPICAL)


def _per_token(model: str, blocks: int) -> float:
    """Operations of a forward pass of a token through so many blocks, or all that there are."""
    shape = _shape(model)
    block_parameters = sum(math.prod(matrix) for _, matrix in shape.matrices())
    # A multiplication and an addition for each parameter.
    return 2.0 * min(blocks, shape.num_hidden_layers) * block_parameters


def operations(spec: ExperimentSpec, sizes: dict[str, int]) -> Steps:
    """Operations of one experiment on calibration and test, without what its variant shares.

    `sizes`: cases of each set.
    """
    model = spec.model.name
    recipe = spec.recipe
    test = sizes["test"]
    batch = INSTRUCTION_TOKENS + OWN_TOKENS_PER_CASE * recipe.batch_size
    updates = 2 * recipe.iterations * batch  # forward and backward
    checks = recipe.iterations // spec.training.evaluate_every * sizes["valid"]
    dropped = test if spec.scoring.mc_cases == "all" else min(test, spec.scoring.mc_cases)
    passes = spec.scoring.passes * dropped if recipe.dropout else 0
    layers = spec.training.num_layers
    return Steps(
        training=_per_token(model, layers) * (updates + OWN_TOKENS_PER_CASE * checks),
        scoring=_of_cases(model, layers, sizes["calibration"] + test),
        dropout=_of_cases(model, layers, passes),
    )


def seconds_of(spec: ExperimentSpec, sizes: dict[str, int], speeds: Steps | None = None) -> Steps:
    """About how long each step of an experiment takes, without what its variant shares."""
    return operations(spec, sizes).at(speeds or assumed_speeds())


def work_left(
    selection: Selection, cells: Sequence[PlannedCell], sizes: dict[str, int]
) -> tuple[Steps, int, float]:
    """What is left of those of the selection's cells that are not done: operations, bytes of the
    activations that are cached, and the share of a step that these save at most.

    Cached activations count as not stored, and each depth of them as computed from the first block.
    """
    all_layers = selection.grid.training.num_layers  # at which untuned models are scored
    judged = sizes.keys() - {"train", "valid"}
    steps = Steps()
    # The sets of which activations are read: by variant, prompt, window and number of blocks. A
    # prompt by its title, since the prompt itself, with answer words, cannot be a key.
    reads: dict[tuple[str, str, str, int, int], set[str]] = defaultdict(set)
    untuned: set[tuple[str, str]] = set()

    def cases_of(names: Iterable[str]) -> int:
        return sum(sizes[name] for name in names)

    for cell in cells:
        if cell.scored:
            continue

        spec = cell.spec
        model = spec.model.name
        precision = spec.precision
        layers = spec.training.num_layers
        own_steps = operations(spec, sizes)
        moves = moves_of(selection.grid, spec, selection.variants)
        # A moved adapter is scored on calibration, too: there its rules are chosen again.
        scored = cases_of(judged) * (1 + len(moves))
        steps += Steps(
            training=0.0 if cell.trained else own_steps.training,
            scoring=_of_cases(model, layers, scored),
            dropout=own_steps.dropout * (1 + len(moves) * spec.scoring.moved_passes),
        )
        if spec.scoring.untuned and (model, precision.name) not in untuned:
            untuned.add((model, precision.name))
            steps += Steps(scoring=_of_cases(model, all_layers, cases_of(judged)))

        for variant, trained, names in (
            (precision, layers, judged if cell.trained else sizes.keys()),
            *([(precision, all_layers, judged)] if spec.scoring.untuned else []),
            *((precision, layers, judged) for precision in moves),
        ):
            frozen = max(0, _shape(model).num_hidden_layers - trained)
            window = spec.training.max_tokens
            reads[model, variant.name, spec.prompt.title, window, frozen].update(names)

    cache_bytes = 0
    saved = 0.0
    for (model, *_, frozen), sets in reads.items():
        shape = _shape(model)
        cases = cases_of(sets)
        steps += Steps(preparing=_of_cases(model, frozen, cases))
        if pays(frozen, shape.num_hidden_layers):
            tokens = INSTRUCTION_TOKENS * len(sets) + OWN_TOKENS_PER_CASE * cases
            cache_bytes += tokens * shape.hidden_size * BYTES_OF[backend().compute_dtype]
            saved = max(saved, saving(frozen, shape.num_hidden_layers))

    return steps, cache_bytes, saved


def time_limits(selection: Selection) -> Callable[[ExperimentSpec, Sequence[str]], float]:
    """The limit in seconds of a step of an experiment, by the kinds of its work.

    What the steps of an experiment share counts for each of them, since each may be the first that
    needs it.
    """
    grid = selection.grid
    cases = None
    if grid.data.source != "embedded":
        # So that own cases are counted where no command has prepared them: a run of the UI.
        with contextlib.suppress(TriageError):  # which the step `prepare` says
            cases = prepare_dataset(grid.data, home(), grid.evaluation_sets)
    sizes = set_sizes(grid, cases)

    def limit(spec: ExperimentSpec, kinds: Sequence[str]) -> float:
        operations, *_ = work_left(selection, [PlannedCell(spec)], sizes)
        expected = operations.at(assumed_speeds())
        return grid.time_limit.seconds(sum(getattr(expected, kind) for kind in kinds))

    return limit


def _of_cases(model: str, layers: int, cases: int) -> float:
    """Operations of so many cases through the trained blocks. The instruction is run once for a
    whole batch, so a case costs its own tokens only.
    """
    return _per_token(model, layers) * OWN_TOKENS_PER_CASE * cases


def estimated_bytes(selection: Selection) -> int:
    """Disk for base models, variants and adapters; prefixes come on top, within their own budget."""
    models = {spec.model.name for spec in selection.cells}
    variants = {(spec.model.name, spec.precision) for spec in selection.cells}
    variants |= {
        (name, precision) for name in models for precision in selection.grid.moved_to or ()
    }
    parameters = {
        name: sum(math.prod(shape) for _, shape in _shape(name).tensors()) for name in models
    }
    total = ADAPTER_BYTES * len(selection.cells) + 4 * sum(parameters.values())
    for name, precision in variants:
        if precision.bits is not None:  # the base model itself stands among the models
            # Half a bit for each weight: the scales and biases of its group.
            total += parameters[name] * (precision.bits + 0.5) / 8

    return int(total)
