"""Ids and folders of experiments, from the spec and what it was given: the same in flows, plans and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.device import backend, compute_dtype, versions
from tasks.runtime.store import home, read_manifest
from tasks.spec import ExperimentSpec, evaluation_id, training_id


def training_of(spec: ExperimentSpec, variant: Path, data: Path) -> str:
    """training_id of an experiment on a variant folder and a dataset folder."""
    return training_from(spec, VariantManifest.parse(_manifest(variant), variant), _manifest(data))


def training_from(spec: ExperimentSpec, weights: VariantManifest, dataset: dict[str, Any]) -> str:
    """training_id of an experiment on a variant and a dataset, given their manifests."""
    return training_id(
        spec, variant=weights.digest, tokenizer=weights.tokenizer_digest,
        train=dataset["sets"]["train"]["digest"], valid=dataset["sets"]["valid"]["digest"],
        prompt=load_prompt().digest, versions=versions(), backend=backend(), compute_dtype=compute_dtype(),
    )  # fmt: skip


def evaluation_of(spec: ExperimentSpec, training: str, data: Path, name: str = "test") -> str:
    """evaluation_id of a trained experiment on a dataset's test set, or on another evaluation set of its folder."""
    return evaluation_from(spec, training, _manifest(data), name)


def evaluation_from(
    spec: ExperimentSpec, training: str, dataset: dict[str, Any], name: str = "test"
) -> str:
    """evaluation_id of a trained experiment on a set of a dataset, given its manifest."""
    sets = dataset["sets"]
    calibration, judged = (sets[key]["digest"] for key in ("calibration", name))
    return evaluation_id(training, spec, calibration=calibration, evaluation_set=judged, name=name)


def experiment_folder(spec: ExperimentSpec, variant: Path, data: Path) -> Path:
    return home() / "experiments" / training_of(spec, variant, data)


def scores_folder(spec: ExperimentSpec, training: str, data: Path, name: str = "test") -> Path:
    return home() / "experiments" / training / "scores" / evaluation_of(spec, training, data, name)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None, f"{folder} is complete by the time it is asked for"
    return manifest
