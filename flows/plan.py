"""What a sweep would do, before any download: its cells, what is cached, where weights can be had, time and disk."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.selection import Selection
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import judged_sets, prepare_dataset
from tasks.identity import evaluation_from, training_from
from tasks.models.convert import variant_folder
from tasks.models.manifest import VariantManifest
from tasks.models.model_shape import is_known, known_shape
from tasks.models.sources import availabilities, stored
from tasks.runtime.device import backend
from tasks.runtime.errors import TriageError
from tasks.runtime.store import complete, home, read_manifest, verify
from tasks.spec import ExperimentSpec
from tasks.tuning.training_rows import settings_digest

# Rough figures, to plan with: sustained GFLOP/s of a training step, tokens of a case, and dropout cases when "all".
GFLOPS = {"cpu": 60.0, "metal": 1500.0}
TOKENS_PER_CASE, OWN_TOKENS_PER_CASE = 120, 70
SCORED_CASES = 1500
TYPICAL_SHAPE = {"layers": 30, "block_parameters": 3.5e6, "parameters": 135e6}


@dataclass(frozen=True)
class PlannedCell:
    """One experiment of a plan: whether the adapter that a sweep would look for is there, whether it has been scored on
    every set that the grid wants, and about how long the rest takes."""

    spec: ExperimentSpec
    trained: bool
    scored: bool
    seconds: float

    @property
    def state(self) -> str:
        return "done" if self.scored else "to score" if self.trained else "to train"


def plan_cells(selection: Selection) -> Iterator[PlannedCell]:
    """Every chosen cell, with what is done of it and how long the rest may take."""
    begun = {spec.cell_id: finished_trainings(spec) for spec in selection.cells}
    dataset = _dataset(selection) if any(begun.values()) else None
    for spec in selection.cells:
        found = None
        if dataset is not None:
            found = next(
                (folder for folder in begun[spec.cell_id] if _is_it(folder, spec, dataset)), None
            )
        scored = found is not None and dataset is not None and _is_scored(found, spec, dataset)
        training = 0.0 if found else training_seconds(spec)
        yield PlannedCell(
            spec, found is not None, scored, training + (0.0 if scored else scoring_seconds(spec))
        )


def sources_of(selection: Selection) -> dict[str, list[tuple[str, str]]]:
    """Per base model of the selection: its sources, and whether each is here, reachable or why not."""
    return availabilities(selection.models, home())


def training_seconds(spec: ExperimentSpec) -> float:
    """Forward and backward through the trained blocks, from operation counts."""
    cases = spec.recipe.iterations * spec.recipe.batch_size
    return _seconds(spec, 2 * cases * TOKENS_PER_CASE)


def scoring_seconds(spec: ExperimentSpec) -> float:
    """Forward through the trained blocks: calibration and test once, and the cases of the dropout passes each time."""
    limits, cases = spec.data.limits, spec.data.limits.get("test", SCORED_CASES)
    chosen = cases if spec.scoring.mc_cases == "all" else min(cases, spec.scoring.mc_cases)
    passes = spec.scoring.passes * chosen if spec.recipe.dropout else 0
    # The instruction is run once for a whole batch, so a case costs its own tokens only.
    return _seconds(
        spec, OWN_TOKENS_PER_CASE * (cases + limits.get("calibration", SCORED_CASES) + passes)
    )


def _seconds(spec: ExperimentSpec, tokens: float) -> float:
    shape = _shape(spec.model.name)
    trained = min(spec.training.num_layers, shape["layers"])
    return float(2 * tokens * shape["block_parameters"] * trained / (GFLOPS[backend()] * 1e9))


def estimated_bytes(selection: Selection) -> int:
    """Disk for base models, variants and adapters; frozen prefixes come on top, within their own budget."""
    total = 0.0
    for name in {c.model.name for c in selection.cells}:
        total += 4 * _shape(name)["parameters"]
    for name, bits in {(c.model.name, c.bits) for c in selection.cells}:
        total += _shape(name)["parameters"] * (bits + 0.5) / 8
    return int(total + 20e6 * len(selection.cells))


def finished_trainings(spec: ExperimentSpec) -> list[Path]:
    """Folders of a cell's finished trainings, whatever cases and weights they were made with."""
    root = home() / "experiments"
    return [p for p in root.glob(f"{spec.cell_id}-*") if complete(p)] if root.is_dir() else []


def _dataset(selection: Selection) -> dict[str, Any] | None:
    """Manifest of the selection's cases as they are now, prepared in a folder that is thrown away: a plan writes nothing.

    None where they cannot be had: then nothing is known to be trained on them.
    """
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(TriageError):
        return verify(
            prepare_dataset(selection.grid.data, Path(place), selection.grid.evaluation_sets),
            deep=False,
        )
    return None


def _is_it(folder: Path, spec: ExperimentSpec, dataset: dict[str, Any]) -> bool:
    """Whether a finished training is the one that a sweep would look for: by its id where the variant is here, else by
    all that decides it but the weights, which are made from the same source again."""
    if (variant := _variant(spec)) is not None:
        return folder.name == training_from(spec, variant, dataset)
    manifest = read_manifest(folder) or {}
    return manifest.get("settings_digest") == settings_digest(
        spec, DatasetManifest.model_validate(dataset)
    ) and _same_sources(folder, spec)


def _is_scored(folder: Path, spec: ExperimentSpec, dataset: dict[str, Any]) -> bool:
    """Whether a finished training has its scores on test and on each further evaluation set."""
    ids = (evaluation_from(spec, folder.name, dataset, name) for name in judged_sets(dataset))
    return all(complete(folder / "scores" / evaluation) for evaluation in ids)


def _variant(spec: ExperimentSpec) -> VariantManifest | None:
    """Manifest of the quantised variant, if it is on this machine."""
    source = stored(spec.model, home())
    if source is None:
        return None
    folder = variant_folder(source, home(), spec.bits, spec.training.group_size)
    return VariantManifest.read_if_complete(folder)


def _same_sources(folder: Path, spec: ExperimentSpec) -> bool:
    told = json.loads((folder / "training.json").read_text())["spec"]
    return bool(told["model"]["sources"] == spec.model.model_dump(mode="json")["sources"])


def _shape(name: str) -> dict[str, Any]:
    if not is_known(name):
        return TYPICAL_SHAPE
    model_shape = known_shape(name)
    sizes = {tensor: math.prod(shape) for tensor, shape in model_shape.tensors()}
    block = sum(
        size
        for tensor, size in sizes.items()
        if tensor.startswith("model.layers.0.") and "norm" not in tensor
    )
    return {
        "layers": model_shape.num_hidden_layers,
        "block_parameters": block,
        "parameters": sum(sizes.values()),
    }
