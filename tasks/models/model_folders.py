"""Where base models and variants are, built or not: the paths of their folders follow from the
source's digest, so a parent process can look for one without importing MLX.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from tasks.models.manifest import ModelManifest, SourceManifest
from tasks.precisions import Precision
from tasks.spec import short_digest

# Part of each folder's name: raised when conversion writes anything else than before.
CONVERT_VERSION = 1


def base_folder(source: Path, root: Path) -> Path:
    """Path of the MLX folder of a source folder, built or not: `models/<base>-base-<digest12>`."""
    manifest = SourceManifest.read(source)
    digest = short_digest(
        {
            "source": manifest.digest,
            "seed": manifest.seed,
            "convert": CONVERT_VERSION,
            "mlx_lm": metadata.version("mlx-lm"),
        }
    )
    return root / "models" / f"{manifest.base_model}-base-{digest}"


def variant_folder(source: Path, root: Path, precision: Precision, group_size: int) -> Path:
    """Path of a variant, built or not: `models/<base>-<precision>-<digest12>`.

    `group_size`: `training.group_size` of the grid. In bfloat16 it is the base model itself.
    """
    base_model = base_folder(source, root)
    if not precision.is_quantised:
        return base_model

    name, _, base = base_model.name.rpartition("-base-")
    ingredients = {
        "base": base,
        "bits": precision.bits,
        "group_size": precision.group_size_in(group_size),
    }
    # What plain precisions do not have adds nothing to their digests.
    if precision.mode != "affine":
        ingredients["mode"] = precision.mode
    if precision.mixture is not None:
        ingredients["mixture"] = precision.mixture

    return root / "models" / f"{name}-{precision.name}-{short_digest(ingredients)}"


def has_random_weights(folder: Path) -> bool:
    """Whether a source or model folder holds random weights; False where it is not complete."""
    manifest = ModelManifest.read_if_complete(folder)
    return manifest is not None and manifest.random_weights
