"""What a sweep would do, before any download: its cells, what is done, where weights are available,
time and disk.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.selection import Selection
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.reading.sources import check_local
from tasks.identity import evaluation_from, training_from
from tasks.models.convert import variant_folder
from tasks.models.manifest import VariantManifest
from tasks.models.model_shape import is_known, known_shape
from tasks.models.sources.available import availabilities, stored
from tasks.runtime.backend import backend
from tasks.runtime.errors import SourceUnavailable
from tasks.runtime.store import complete, home
from tasks.spec import ExperimentSpec
from tasks.tuning.summary import TrainingManifest
from tasks.tuning.training_rows import settings_digest

# Rough figures, to plan with.
TOKENS_PER_CASE = 120  # with the instruction
OWN_TOKENS_PER_CASE = 70  # without it
SCORED_CASES = 1500  # of a set without a limit
ADAPTER_BYTES = 20e6


@dataclass(frozen=True)
class Size:
    """What estimates need of a model's shape: its blocks, and parameters of one block and of the
    whole.
    """

    blocks: int
    block_parameters: float
    parameters: float


TYPICAL_SIZE = Size(blocks=30, block_parameters=3.5e6, parameters=135e6)


@dataclass(frozen=True)
class PlannedCell:
    """One experiment of a plan.

    `trained`: whether the adapter that a sweep looks for exists; `scored`: whether it has scores on
    every set of the grid; `seconds`: about how long the rest takes.
    """

    spec: ExperimentSpec
    trained: bool
    scored: bool
    seconds: float

    @property
    def state(self) -> str:
        return "done" if self.scored else "to score" if self.trained else "to train"


def plan_cells(selection: Selection) -> Iterator[PlannedCell]:
    """Every chosen cell, with what is done of it and how long the rest may take.

    Raises BadInput for cases that a sweep would refuse, as far as that is known without a network.
    """
    check_local(selection.grid.data)
    for evaluation_set in selection.grid.evaluation_sets:
        check_local(evaluation_set)
    trainings = {spec.cell_id: finished_trainings(spec) for spec in selection.cells}
    dataset = _dataset(selection) if any(trainings.values()) else None
    for spec in selection.cells:
        yield _planned(spec, trainings[spec.cell_id], dataset)


def _planned(
    spec: ExperimentSpec, trainings: list[Path], dataset: DatasetManifest | None
) -> PlannedCell:
    for folder in trainings:
        if dataset is not None and _is_of(folder, spec, dataset):
            scored = _is_scored(folder, spec, dataset)
            return PlannedCell(spec, True, scored, 0.0 if scored else scoring_seconds(spec))
    return PlannedCell(spec, False, False, training_seconds(spec) + scoring_seconds(spec))


def sources_of(selection: Selection) -> dict[str, list[tuple[str, str]]]:
    """Per base model of the selection: its sources, and whether each is here, reachable or why not."""
    return availabilities(selection.models, home())


def training_seconds(spec: ExperimentSpec) -> float:
    """Forward and backward through the trained blocks, from operation counts."""
    cases = spec.recipe.iterations * spec.recipe.batch_size
    return _seconds(spec, 2 * cases * TOKENS_PER_CASE)


def scoring_seconds(spec: ExperimentSpec) -> float:
    """Forward through the trained blocks: calibration and test once, and the cases of the dropout
    passes each time.
    """
    limits = spec.data.limits
    cases = limits.get("test", SCORED_CASES)
    dropout_cases = cases if spec.scoring.mc_cases == "all" else min(cases, spec.scoring.mc_cases)
    passes = spec.scoring.passes * dropout_cases if spec.recipe.dropout else 0
    # The instruction is run once for a whole batch, so a case costs its own tokens only.
    scored = cases + limits.get("calibration", SCORED_CASES) + passes
    return _seconds(spec, OWN_TOKENS_PER_CASE * scored)


def _seconds(spec: ExperimentSpec, tokens: float) -> float:
    size = _size(spec.model.name)
    trained_blocks = min(spec.training.num_layers, size.blocks)
    return 2 * tokens * size.block_parameters * trained_blocks / (backend().planned_gflops * 1e9)


def estimated_bytes(selection: Selection) -> int:
    """Disk for base models, variants and adapters; frozen prefixes come on top, within their own
    budget.
    """
    models = {spec.model.name for spec in selection.cells}
    variants = {(spec.model.name, spec.precision) for spec in selection.cells}
    total = ADAPTER_BYTES * len(selection.cells)
    total += sum(4 * _size(name).parameters for name in models)
    total += sum(
        _size(name).parameters * (precision.bits + 0.5) / 8
        for name, precision in variants
        if precision.bits is not None  # the base model itself stands among the models
    )
    return int(total)


def finished_trainings(spec: ExperimentSpec) -> list[Path]:
    """Folders of a cell's finished trainings, whatever cases and weights they were made with."""
    root = home() / "experiments"
    if not root.is_dir():
        return []
    return [path for path in root.glob(f"{spec.cell_id}-*") if complete(path)]


def _dataset(selection: Selection) -> DatasetManifest | None:
    """Manifest of the selection's cases as they are now, prepared in a temporary folder: a plan
    writes nothing.

    None if the Hub does not answer: then nothing counts as trained on them.
    """
    grid = selection.grid
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SourceUnavailable):
        return DatasetManifest.read(prepare_dataset(grid.data, Path(folder), grid.evaluation_sets))
    return None


def _is_of(folder: Path, spec: ExperimentSpec, dataset: DatasetManifest) -> bool:
    """Whether a finished training is the one that a sweep looks for.

    By its id if the variant is on this machine, else by all that decides it but the weights, which
    are made from the same source again.
    """
    if (variant := _variant(spec)) is not None:
        return folder.name == training_from(spec, variant, dataset)
    manifest = TrainingManifest.read_if_complete(folder)
    is_alike = manifest is not None and manifest.settings_digest == settings_digest(spec, dataset)
    return is_alike and _same_sources(folder, spec)


def _is_scored(folder: Path, spec: ExperimentSpec, dataset: DatasetManifest) -> bool:
    """Whether a finished training has its scores on test and on each further evaluation set."""
    ids = (evaluation_from(spec, folder.name, dataset, name) for name in dataset.evaluation_sets)
    return all(complete(folder / "scores" / evaluation) for evaluation in ids)


def _variant(spec: ExperimentSpec) -> VariantManifest | None:
    """Manifest of the quantised variant, if it is on this machine."""
    source = stored(spec.model, home())
    if source is None:
        return None
    folder = variant_folder(source, home(), spec.precision, spec.training.group_size)
    return VariantManifest.read_if_complete(folder)


def _same_sources(folder: Path, spec: ExperimentSpec) -> bool:
    trained = json.loads((folder / "training.json").read_text(encoding="utf-8"))["spec"]
    return bool(trained["model"]["sources"] == spec.model.model_dump(mode="json")["sources"])


def _size(name: str) -> Size:
    """The size of a base model, or a typical one if its shape is not known."""
    if not is_known(name):
        return TYPICAL_SIZE
    shape = known_shape(name)
    sizes = {tensor: math.prod(dimensions) for tensor, dimensions in shape.tensors()}
    block = sum(
        size
        for tensor, size in sizes.items()
        if tensor.startswith("model.layers.0.") and "norm" not in tensor
    )
    return Size(shape.num_hidden_layers, block, sum(sizes.values()))
