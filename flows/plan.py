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
from tasks.models.exact_sizes import is_known, known_config, tensors
from tasks.corpus.prepare import prepare_dataset
from tasks.identity import training_from
from tasks.models.convert import variant_folder
from tasks.models.sources import availabilities, stored
from tasks.runtime.device import backend
from tasks.runtime.errors import TriageError
from tasks.runtime.store import complete, home, read_manifest, verify
from tasks.spec import ExperimentSpec
from tasks.tuning.rows import settings_digest

# Rough figures, to plan with: sustained GFLOP/s of a training step, tokens of a case, and dropout cases when "all".
GFLOPS = {"cpu": 60.0, "metal": 1500.0}
TOKENS_PER_CASE, OWN_TOKENS_PER_CASE = 120, 70
SCORED_CASES = 1500
TYPICAL_SHAPE = {"layers": 30, "block_parameters": 3.5e6, "parameters": 135e6}


@dataclass(frozen=True)
class PlannedCell:
    """One experiment of a plan; `trained` if the adapter that a sweep would look for is there already."""

    spec: ExperimentSpec
    trained: bool
    seconds: float


def plan_cells(selection: Selection) -> Iterator[PlannedCell]:
    """Every chosen cell, with whether it is trained and how long it may take."""
    begun = {spec.cell_id: _candidates(spec) for spec in selection.cells}
    dataset = _dataset(selection) if any(begun.values()) else None
    for spec in selection.cells:
        trained = dataset is not None and any(_is_it(folder, spec, dataset) for folder in begun[spec.cell_id])
        yield PlannedCell(spec, trained, 0.0 if trained else estimated_seconds(spec))


def sources_of(selection: Selection) -> dict[str, list[tuple[str, str]]]:
    """Per base model of the selection: its sources, and whether each is here, reachable or why not."""
    return availabilities(selection.models, home())


def estimated_seconds(spec: ExperimentSpec) -> float:
    """Training (forward and backward through the trained blocks) and dropout passes, from operation counts."""
    shape = _shape(spec.model.name)
    trained = min(spec.training.num_layers, shape["layers"])
    per_case = 2 * TOKENS_PER_CASE * shape["block_parameters"]
    tuning = spec.recipe.iterations * spec.recipe.batch_size * per_case * 2 * trained
    cases = spec.data.limits.get("test", SCORED_CASES)
    cases = cases if spec.scoring.mc_cases == "all" else min(cases, spec.scoring.mc_cases)
    # The instruction is run once a pass, so a case costs its own tokens only.
    per_pass = 2 * OWN_TOKENS_PER_CASE * shape["block_parameters"]
    passes = spec.scoring.passes * cases * per_pass * trained if spec.recipe.dropout else 0
    return float((tuning + passes) / (GFLOPS[backend()] * 1e9))


def estimated_bytes(selection: Selection) -> int:
    """Disk for base models, variants and adapters; frozen prefixes come on top, within their own budget."""
    total = 0.0
    for name in {c.model.name for c in selection.cells}:
        total += 4 * _shape(name)["parameters"]
    for name, bits in {(c.model.name, c.bits) for c in selection.cells}:
        total += _shape(name)["parameters"] * (bits + 0.5) / 8
    return int(total + 20e6 * len(selection.cells))


def _candidates(spec: ExperimentSpec) -> list[Path]:
    root = home() / "experiments"
    return [p for p in root.glob(f"{spec.cell_id}-*") if complete(p)] if root.is_dir() else []


def _dataset(selection: Selection) -> dict[str, Any] | None:
    """Manifest of the selection's cases as they are now, prepared in a folder that is thrown away: a plan writes nothing.

    None where they cannot be had: then nothing is known to be trained on them.
    """
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(TriageError):
        return verify(prepare_dataset(selection.grid.data, Path(place), selection.grid.evaluation_sets), deep=False)
    return None


def _is_it(folder: Path, spec: ExperimentSpec, dataset: dict[str, Any]) -> bool:
    """Whether a finished training is the one that a sweep would look for: by its id where the variant is here, else by
    all that decides it but the weights, which are made from the same source again."""
    if (variant := _variant(spec)) is not None:
        return folder.name == training_from(spec, variant, dataset)
    manifest = read_manifest(folder) or {}
    return manifest.get("settings_digest") == settings_digest(spec, dataset) and _same_sources(folder, spec)


def _variant(spec: ExperimentSpec) -> dict[str, Any] | None:
    """Manifest of the quantised variant, if it is on this machine."""
    source = stored(spec.model, home())
    return complete(variant_folder(source, home(), spec.bits, spec.training.group_size)) if source else None


def _same_sources(folder: Path, spec: ExperimentSpec) -> bool:
    told = json.loads((folder / "training.json").read_text())["spec"]
    return bool(told["model"]["sources"] == spec.model.model_dump(mode="json")["sources"])


def _shape(name: str) -> dict[str, Any]:
    if not is_known(name):
        return TYPICAL_SHAPE
    config = known_config(name)
    sizes = {tensor: math.prod(shape) for tensor, shape in tensors(config)}
    block = sum(size for tensor, size in sizes.items() if tensor.startswith("model.layers.0.") and "norm" not in tensor)
    return {"layers": config["num_hidden_layers"], "block_parameters": block, "parameters": sum(sizes.values())}
