"""What the trials of a search are trained on, by names that an error can tell."""

from __future__ import annotations

from pathlib import Path

from tasks.corpus.manifest import DatasetManifest
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend, versions
from tasks.spec import ENGINE_VERSION

SHOWN = 12  # hex digits of a digest


def foundation(variant: Path, data: Path) -> dict[str, str]:
    """Cases, weights and versions."""
    weights = VariantManifest.read(variant)
    dataset = DatasetManifest.read(data)
    return {
        "cases of train": dataset.digest_of("train")[:SHOWN],
        "cases of valid": dataset.digest_of("valid")[:SHOWN],
        "weights": weights.digest[:SHOWN],
        "backend": backend().name,
        "version of the engine": str(ENGINE_VERSION),
        **{f"version of {name}": version for name, version in versions().items()},
    }
