"""The manifests of source folders (`sources/`) and model folders (`models/`), and where model folders
are, built or not: their paths follow from the digests of their sources, so a parent process can
look for one without importing MLX.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.precisions import Precision, of_bits
from tasks.runtime.store import Manifest
from tasks.spec import short_digest

# Part of each folder's name: raised when conversion writes anything else than before.
CONVERT_VERSION = 1


class Origin(BaseModel):
    """Where weights were fetched from: the listed source, with the commit that it resolved to."""

    # Each kind of source adds keys of its own (repo and commit, package and version, path): they
    # are kept as written.
    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Literal["hub", "package", "folder", "random"]
    sha256: str | None = None


class TermsOfUse(BaseModel):
    """Terms of use as shown before the download, and the licence texts in the folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: str
    notice: str
    shown: str
    texts: tuple[str, ...] = ()


class ModelManifest(Manifest):
    """What a source folder and the folders converted from it both record."""

    base_model: str
    licence: str
    original_precision: str
    random_weights: bool
    source: Origin
    weights_source: str
    file_digest: str | None = None
    terms: TermsOfUse | None = None

    @property
    def fetched_file_digest(self) -> str | None:
        """SHA-256 of the file that the weights were fetched as; None where it is not known."""
        return self.file_digest or self.source.sha256 or None


class SourceManifest(ModelManifest):
    """A source folder: weights as they were fetched.

    `seed` draws random weights and is None for all others.
    """

    format: Literal["gguf", "random", "safetensors"]
    seed: int | None = None


class VariantManifest(ModelManifest):
    """A model folder in MLX's layout.

    `bits` and `group_size` are None for the converted base model in bfloat16. `precision` names how
    the weights are stored. `source_digest` is the digest of the source folder; `prompt` says
    whether the tokenizer has a chat template.
    """

    bits: int | None
    group_size: int | None
    stored_bytes: int
    bytes_by_part: dict[str, int]
    parameters: int
    bits_per_weight: float
    tokenizer_digest: str
    source_digest: str
    prompt: Literal["chat", "plain"]
    versions: dict[str, str]
    precision: str | None = None

    @property
    def precision_name(self) -> str:
        """The name of its precision; a folder that lacks it is plain, and named by its bits."""
        return self.precision or of_bits(self.bits).name

    @property
    def has_chat_template(self) -> bool:
        """Whether its tokenizer has a chat template; the plain prompt is used where it has none."""
        return self.prompt == "chat"


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
