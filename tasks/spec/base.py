"""What all specs share: labels, versions, names, digests, and the base class that leaves young
settings out of ids.
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
