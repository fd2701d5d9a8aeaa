"""Ids and folders of experiments, from the spec and its inputs: the same in flows, plans and tests.

An id holds everything that decides a result and nothing else, so that equal ids mean equal results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend, versions
from tasks.runtime.home import home
from tasks.runtime.store import Manifest, read_manifest
from tasks.spec import (
    ENGINE_VERSION,
    OF_OTHER_STEPS,
    SCORES_VERSION,
    ExperimentSpec,
    short_digest,
)

INGREDIENTS = "ingredients.json"  # in the folder of a training
Kind = TypeVar("Kind", bound=Manifest)


def training_ingredients(
    spec: ExperimentSpec, weights: VariantManifest, dataset: DatasetManifest
) -> dict[str, Any]:
    """Everything that decides an adapter, as JSON: what a training id is the digest of.

    Names, and how the adapter is judged, decide no training; neither does its memory.
    """
    judged_by = {"name", "target_ed_recall", "primary_rule"}
    return {
        "cell": spec.cell_id,
        "recipe": spec.recipe.model_dump(mode="json", exclude=judged_by),
        "training": spec.training.model_dump(mode="json", exclude={"memory"}),
        "engine": ENGINE_VERSION,
        "variant": weights.digest,
        "tokenizer": weights.tokenizer_digest,
        "train": dataset.digest_of("train"),
        "valid": dataset.digest_of("valid"),
        "prompt": load_prompt(spec.prompt).digest,
        "versions": versions(),
        "backend": backend().name,
        "compute_dtype": backend().compute_dtype,
        **backend().id_ingredients,
    }


def training_from(spec: ExperimentSpec, weights: VariantManifest, dataset: DatasetManifest) -> str:
    """Id of one training: the cell and the digest of everything that decides the adapter."""
    return f"{spec.cell_id}-{short_digest(training_ingredients(spec, weights, dataset))}"


def training_of(spec: ExperimentSpec, variant: Path, data: Path) -> str:
    """training_id of an experiment on a variant folder and a dataset folder."""
    return training_from(spec, _read(VariantManifest, variant), _read(DatasetManifest, data))


def scores_from(
    spec: ExperimentSpec, training: str, dataset: DatasetManifest, name: str = "test"
) -> str:
    """Id of a trained adapter's scores on a set: more passes or another set never retrain.

    `name` keeps two sets of the same cases apart. How the scores are judged is `evaluation_id`'s
    alone.
    """
    ingredients = {
        "training": training,
        "calibration": dataset.digest_of("calibration"),
        "evaluation_set": dataset.digest_of(name),
        "scoring": spec.scoring.model_dump(mode="json", exclude=OF_OTHER_STEPS),
        "version": SCORES_VERSION,
        "rule": spec.recipe.rule,
        "target_ed_recall": spec.recipe.target_ed_recall,
    }
    # Ids on the test set are older than further sets, and stay as they are.
    if name != "test":
        ingredients["name"] = name

    return f"{training}-e{short_digest(ingredients)}"


def scores_of(spec: ExperimentSpec, training: str, data: Path, name: str = "test") -> str:
    """`scores_from` of a set in a dataset folder."""
    return scores_from(spec, training, _read(DatasetManifest, data), name)


def experiment_folder(spec: ExperimentSpec, variant: Path, data: Path) -> Path:
    """The folder of a training, whether it exists yet or not."""
    return home() / "experiments" / training_of(spec, variant, data)


def scores_folder(spec: ExperimentSpec, training: str, data: Path, name: str = "test") -> Path:
    """The folder of the scores of a training on a set, whether it exists yet or not."""
    return home() / "experiments" / training / "scores" / scores_of(spec, training, data, name)


def _read(kind: type[Kind], folder: Path) -> Kind:
    """A manifest without verifying its folder, which the step that made it has done."""
    manifest = read_manifest(folder)
    assert manifest is not None, f"{folder} must be complete before its id is computed"
    return kind.parse(manifest, folder)
