"""What a sweep would do, before any download: its cells, what is done, where weights are available,
time and disk.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flows.plan_operations import all_operations, operations, size_of
from flows.plan_time import Steps, assumed_speeds
from flows.power.planned_cases import PlannedCases, planned_cases
from flows.selection import Selection
from tasks.corpus.apart import check_examples
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.corpus.reading.sources import check_local
from tasks.identity import scores_from, training_from
from tasks.models.manifest import VariantManifest, variant_folder
from tasks.models.sources.fetch import availabilities, stored
from tasks.precisions import Precision
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.spec import BaseModelSpec, ExperimentSpec, Grid
from tasks.tuning.summary import TrainingManifest
from tasks.tuning.training_rows import settings_digest

ADAPTER_BYTES = 20e6


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


def plan_cells(
    selection: Selection, speeds: Steps | None = None, cases: PlannedCases | None = None
) -> Iterator[PlannedCell]:
    """Every chosen cell, with what is done of it and how long the rest may take. `cases`: those of
    the plan.

    Raises BadInput for cases that a sweep would refuse, as far as that is known without a network.
    """
    check_local(selection.grid.data)
    for evaluation_set in selection.grid.evaluation_sets:
        check_local(evaluation_set)

    trainings = {spec.cell_id: finished_trainings(spec) for spec in selection.cells}
    with planned_cases(selection.grid, cases) as read:
        _refuse_examples(selection, read)
        dataset = _dataset(read) if any(trainings.values()) else None

    for spec in selection.cells:
        yield _planned_cell(spec, trainings[spec.cell_id], dataset, speeds)


def _refuse_examples(selection: Selection, cases: PlannedCases) -> None:
    """Refuse cases that a chosen prompt shows as examples; no embedded set has one.

    Raises BadInput.
    """
    has_examples = any(load_prompt(prompt).examples for prompt in selection.prompts)
    if selection.grid.data.source == "embedded" or not has_examples:
        return
    folder = cases.folder()
    if folder is not None:
        check_examples(folder, selection.prompts)


def _planned_cell(
    spec: ExperimentSpec,
    trainings: list[Path],
    dataset: DatasetManifest | None,
    speeds: Steps | None,
) -> PlannedCell:
    seconds = seconds_of(spec, speeds)
    for folder in trainings:
        if dataset is not None and _is_of(folder, spec, dataset):
            scored = _is_scored(folder, spec, dataset)
            return PlannedCell(
                spec, True, scored, 0.0 if scored else replace(seconds, training=0.0).total
            )

    return PlannedCell(spec, False, False, seconds.total)


def sources_of(selection: Selection) -> dict[str, list[tuple[str, str]]]:
    """Per base model of the selection: its sources, and whether each is here, reachable or why not."""
    return availabilities(selection.models, home())


def seconds_of(spec: ExperimentSpec, speeds: Steps | None = None) -> Steps:
    """About how long each step of an experiment takes, without what its variant shares."""
    return operations(spec).at(speeds or assumed_speeds())


def work_left(grid: Grid, cells: Collection[PlannedCell]) -> Steps:
    """Operations of what is not done of a plan."""
    open_cells = [cell for cell in cells if not cell.scored]
    variants = {(cell.spec.model.name, cell.spec.precision.name) for cell in cells}
    has_trained = [cell.trained for cell in open_cells]
    return all_operations(grid, [cell.spec for cell in open_cells], has_trained, variants)


def estimated_bytes(selection: Selection) -> int:
    """Disk for base models, variants and adapters; frozen prefixes come on top, within their own
    budget.
    """
    models = {spec.model.name for spec in selection.cells}
    variants = {(spec.model.name, spec.precision) for spec in selection.cells}
    variants |= {
        (name, precision) for name in models for precision in selection.grid.moved_to or ()
    }
    total = ADAPTER_BYTES * len(selection.cells)
    total += sum(4 * size_of(name).parameters for name in models)
    # Half a bit for each weight: the scales and biases of its group.
    total += sum(
        size_of(name).parameters * (precision.bits + 0.5) / 8
        for name, precision in variants
        if precision.bits is not None  # the base model itself stands among the models
    )

    return int(total)


def finished_trainings(spec: ExperimentSpec) -> list[Path]:
    """Folders of a cell's finished trainings, whatever cases and weights they were made with."""
    root = home() / "experiments"
    if not root.is_dir():
        return []
    return [path for path in root.glob(f"{spec.cell_id}-*") if intact_manifest(path)]


def _dataset(cases: PlannedCases) -> DatasetManifest | None:
    """Manifest of the selection's cases as they are now.

    None if the Hub does not answer: then nothing counts as trained on them.
    """
    folder = cases.folder(also_embedded=True)
    return DatasetManifest.read(folder) if folder else None


def _is_of(folder: Path, spec: ExperimentSpec, dataset: DatasetManifest) -> bool:
    """Whether a finished training is the one that a sweep looks for.

    By its id if the variant is on this machine, else by all that decides it but the weights, which
    are made from the same source again.
    """
    variant = variant_here(spec.model, spec.precision, spec.training.group_size)
    if variant is not None:
        return folder.name == training_from(spec, variant, dataset)
    manifest = TrainingManifest.read_if_complete(folder)
    is_alike = manifest is not None and manifest.settings_digest == settings_digest(spec, dataset)
    return is_alike and _same_sources(folder, spec)


def _is_scored(folder: Path, spec: ExperimentSpec, dataset: DatasetManifest) -> bool:
    """Whether a finished training has its scores on test and on each further evaluation set."""
    ids = (scores_from(spec, folder.name, dataset, name) for name in dataset.evaluation_sets)
    return all(intact_manifest(folder / "scores" / scores) for scores in ids)


def variant_here(
    model: BaseModelSpec, precision: Precision, group_size: int
) -> VariantManifest | None:
    """Manifest of the variant of a model, if it is on this machine."""
    source = stored(model, home())
    if source is None:
        return None
    return VariantManifest.read_if_complete(variant_folder(source, home(), precision, group_size))


def _same_sources(folder: Path, spec: ExperimentSpec) -> bool:
    training_spec = json.loads((folder / "training.json").read_text(encoding="utf-8"))["spec"]
    return bool(training_spec["model"]["sources"] == spec.model.model_dump(mode="json")["sources"])
