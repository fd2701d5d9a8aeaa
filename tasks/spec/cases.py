"""The cases to train on and to judge with, and further sets to score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from tasks.spec.base import OMITTED_AT_DEFAULT, Label, Name, Strict, add_up_to_one, every_label

EMBEDDED_EVALUATION_SETS = ("test_adversarial", "test_adversarial_2")
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
    def _subgroups_are_no_texts(self) -> Columns:
        private = {self.text_column, self.label_column, self.rationale_column, self.id_column}
        private |= {"case_id", "id"}
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
        " `test_adversarial` (300 cases) and `test_adversarial_2` (1,200)"
    )

    @model_validator(mode="after")
    def _name_is_free(self) -> EvaluationSet:
        if self.name in (*get_args(SetName), "all", "facts"):
            raise ValueError(
                f"the name {self.name} is taken by the training dataset itself; choose another"
            )
        if self.source == "embedded" and self.name not in EMBEDDED_EVALUATION_SETS:
            raise ValueError(
                f"embedded evaluation sets are named {' and '.join(EMBEDDED_EVALUATION_SETS)}, not"
                f" {self.name}"
            )

        return self


Shares = Annotated[
    dict[Label, Annotated[float, Field(gt=0, lt=1)]],
    AfterValidator(every_label),
    AfterValidator(add_up_to_one),
]
SetSize = Annotated[int, Field(ge=100, le=100_000)]


def _every_set(value: dict[SetName, float]) -> dict[SetName, float]:
    names: tuple[SetName, ...] = get_args(SetName)
    if missing := [name for name in names if name not in value]:
        raise ValueError(
            f"there is no share for {missing[0]}; it needs one for each of the four sets"
        )
    return value


SetShares = Annotated[
    dict[SetName, Annotated[float, Field(gt=0, lt=1)]],
    AfterValidator(_every_set),
    AfterValidator(add_up_to_one),
]


# Settings of `[data]` that describe the embedded cases.
EMBEDDED_ONLY = (
    *("shares", "train_cases", "calibration_cases", "test_cases"),
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
                f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} for source = 'embedded' "
                "only, whose cases the generator writes; other cases are used as they are"
            )
        if self.further_share and self.seed != HOLDOUT_SEED:
            raise ValueError(
                f"further_share needs data.seed = {HOLDOUT_SEED}: further problems are written "
                "apart from the problems that this seed holds out, and another one holds out others"
            )

        return self
