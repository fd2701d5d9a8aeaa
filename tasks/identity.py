"""Ids and folders of experiments, from the spec and its inputs: the same in flows, plans and tests.

An id holds everything that decides a result and nothing else, so that equal ids mean equal results.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend, versions
from tasks.runtime.home import home
from tasks.runtime.manifest import Manifest
from tasks.runtime.store import read_manifest
from tasks.spec import ENGINE_VERSION, SCORES_VERSION, ExperimentSpec, short_digest

INGREDIENTS = "ingredients.json"  # in the folder of a training
Kind = TypeVar("Kind", bound=Manifest)


@dataclass(frozen=True)
class TrainingInputs:
    """What decides a training beside its spec.

    `variant`, `tokenizer`, `train`, `valid`, `prompt` are content digests; `versions` those of mlx
    and mlx-lm; `compute_path` is None on the backends that imply it.
    """

    variant: str
    tokenizer: str
    train: str
    valid: str
    prompt: str
    versions: dict[str, str]
    backend: str
    compute_dtype: str
    compute_path: str | None = None


def training_ingredients(spec: ExperimentSpec, inputs: TrainingInputs) -> dict[str, Any]:
    """Everything that decides an adapter, as JSON: what a training id is the digest of.

    Names, and how the adapter is judged, decide no training; neither does its memory.
    """
    judged_by = {"name", "target_ed_recall", "primary_rule"}
    ingredients = {
        "cell": spec.cell_id,
        "recipe": spec.recipe.model_dump(mode="json", exclude=judged_by),
        "training": spec.training.model_dump(mode="json", exclude={"memory"}),
        "engine": ENGINE_VERSION,
        **asdict(inputs),
    }
    # Left out rather than None, so that ids from before there was a choice stay as they are.
    if inputs.compute_path is None:
        del ingredients["compute_path"]

    return ingredients


def training_id(spec: ExperimentSpec, inputs: TrainingInputs) -> str:
    """Id of one training: the cell and the digest of everything that decides the adapter."""
    return f"{spec.cell_id}-{short_digest(training_ingredients(spec, inputs))}"


def scores_id(
    training: str,
    spec: ExperimentSpec,
    *,
    calibration: str,
    evaluation_set: str,
    name: str = "test",
) -> str:
    """Id of a trained adapter's scores on a set: more passes or another set never retrain.

    `calibration` and `evaluation_set` are content digests of the cases; `name` keeps two sets of
    the same cases apart. How the scores are judged is `evaluation_id`'s alone.
    """
    of_other_steps = {"fidelity_cases", "move_adapters", "moved_passes"}
    ingredients = {
        "training": training,
        "calibration": calibration,
        "evaluation_set": evaluation_set,
        "scoring": spec.scoring.model_dump(mode="json", exclude=of_other_steps),
        "version": SCORES_VERSION,
        "rule": spec.recipe.rule,
        "target_ed_recall": spec.recipe.target_ed_recall,
    }
    # Ids on the test set are older than further sets, and stay as they are.
    if name != "test":
        ingredients["name"] = name

    return f"{training}-e{short_digest(ingredients)}"


def training_of(spec: ExperimentSpec, variant: Path, data: Path) -> str:
    """training_id of an experiment on a variant folder and a dataset folder."""
    weights = _read(VariantManifest, variant)
    return training_from(spec, weights, _read(DatasetManifest, data))


def training_from(spec: ExperimentSpec, weights: VariantManifest, dataset: DatasetManifest) -> str:
    """training_id of an experiment on a variant and a dataset, given their manifests."""
    return training_id(spec, _inputs(spec, weights, dataset))


def ingredients_of(spec: ExperimentSpec, variant: Path, data: Path) -> dict[str, Any]:
    """`training_ingredients` of an experiment on a variant folder and a dataset folder."""
    weights = _read(VariantManifest, variant)
    return training_ingredients(spec, _inputs(spec, weights, _read(DatasetManifest, data)))


def _inputs(
    spec: ExperimentSpec, weights: VariantManifest, dataset: DatasetManifest
) -> TrainingInputs:
    return TrainingInputs(
        variant=weights.digest,
        tokenizer=weights.tokenizer_digest,
        train=dataset.digest_of("train"),
        valid=dataset.digest_of("valid"),
        prompt=load_prompt(spec.prompt).digest,
        versions=versions(),
        backend=backend().name,
        compute_dtype=backend().compute_dtype,
        compute_path=backend().id_ingredients.get("compute_path"),
    )


def scores_of(spec: ExperimentSpec, training: str, data: Path, name: str = "test") -> str:
    """scores_id of a trained experiment on a dataset's test set, or on
    another evaluation set of its folder.
    """
    return scores_from(spec, training, _read(DatasetManifest, data), name)


def scores_from(
    spec: ExperimentSpec, training: str, dataset: DatasetManifest, name: str = "test"
) -> str:
    """scores_id of a trained experiment on a set of a dataset, given its manifest."""
    return scores_id(
        training,
        spec,
        calibration=dataset.digest_of("calibration"),
        evaluation_set=dataset.digest_of(name),
        name=name,
    )


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
