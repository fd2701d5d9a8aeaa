"""Conversion of a source folder to MLX in bfloat16, and from there to quantised variants, as child
processes run it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from tasks.models.manifest import VariantManifest
from tasks.models.mlx_folders import write_base, write_variant
from tasks.models.model_folders import base_folder, variant_folder
from tasks.precisions import Precision, with_precision_for_bits
from tasks.runtime import store
from tasks.runtime.events import Emit
from tasks.runtime.locks import BUILD_SECONDS, locked

Build = Callable[[Path], dict[str, Any]]  # fills a folder; returns the entries of its manifest


class ConvertJob(BaseModel):
    """Arguments of `run_convert`: a source folder, and the home in which to build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    root: Path


class QuantizeJob(ConvertJob):
    """Arguments of `run_quantize`: a precision, and the `training.group_size` of the grid.

    `bits` may stand in the place of a precision.
    """

    precision: Precision
    group_size: int

    @model_validator(mode="before")
    @classmethod
    def _bits_name_a_precision(cls, values: Any) -> Any:
        return with_precision_for_bits(values)


def run_convert(args: dict[str, Any], emit: Emit | None = None) -> dict[str, Any]:
    """Build the MLX folder of a source (`args`: ConvertJob); returns "folder" and its manifest."""
    job = ConvertJob.model_validate(args)
    folder = base_folder(job.source, job.root)
    _build_if_missing(folder, lambda target: write_base(job.source, target))
    return _result(folder)


def run_quantize(args: dict[str, Any], emit: Emit | None = None) -> dict[str, Any]:
    """The same for a variant (`args`: QuantizeJob).

    Converts the source first where that is not done yet.
    """
    job = QuantizeJob.model_validate(args)
    folder = variant_folder(job.source, job.root, job.precision, job.group_size)

    def build(target: Path) -> dict[str, Any]:
        base = base_folder(job.source, job.root)
        _build_or_repair(base, lambda base_target: write_base(job.source, base_target))
        return write_variant(base, target, job.precision, job.group_size)

    if job.precision.is_quantised:
        _build_if_missing(folder, build)
    else:
        _build_if_missing(folder, lambda target: write_base(job.source, target))

    return _result(folder)


def _build_if_missing(folder: Path, build: Build) -> None:
    """Build a folder unless it is complete: by the sizes of its files, where this process chain has
    compared their digests before.
    """
    if store.verified_manifest(folder) is None:
        _build_or_repair(folder, build)


def _build_or_repair(folder: Path, build: Build) -> None:
    """Build a folder unless it is complete by the digests of its files."""
    with locked(folder, BUILD_SECONDS):
        store.build_folder(folder, build)


def _result(folder: Path) -> dict[str, Any]:
    manifest = VariantManifest.read(folder)
    return {"folder": str(folder), **manifest.model_dump(mode="json", exclude_unset=True)}
