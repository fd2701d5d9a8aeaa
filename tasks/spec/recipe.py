"""Recipes, the settings that all of a grid share, and the `[search]` table: where `triage search` looks
for a recipe.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    FiniteFloat,
    StrictInt,
    Tag,
    model_validator,
)

from tasks.spec.base import (
    LABELS,
    OMITTED_AT_DEFAULT,
    EachOnce,
    EveryLabel,
    Fraction,
    Label,
    Name,
    Seed,
    Strict,
)

Decay = Literal["none", "linear", "cosine"]
Sampling = Literal["natural", "balanced", "square_root"]
SelectBy = Literal["loss", "macro_f1"]
OVERRIDES = (
    "num_layers",
    "target_modules",
    "decay",
    "warmup_ratio",
    "max_gradient_norm",
    "evaluate_every",
)


def _right_is_cheapest(value: dict[Label, dict[Label, float]]) -> dict[Label, dict[Label, float]]:
    for truth, row in value.items():
        if row[truth] > min(row.values()):
            raise ValueError(f"in the row {truth} the right decision costs more than a wrong one")
    return value


Cost = Annotated[float, Field(ge=0, le=1e6)]
CostMatrix = Annotated[
    dict[Label, Annotated[dict[Label, Cost], EveryLabel]],
    EveryLabel,
    AfterValidator(_right_is_cheapest),
]
ClassWeights = Annotated[dict[Label, Annotated[float, Field(gt=0, le=1e6)]], EveryLabel]


class Safety(Strict):
    """Defaults of all safety recipes; its cost matrix also prices the decisions of the others."""

    cost_matrix: CostMatrix | None = Field(
        default=None, description="cost of each decision (column) for each true label (row)"
    )
    class_weights: ClassWeights | None = Field(
        default=None, description="weight of each label in the loss"
    )


def _is_answer(word: str) -> str:
    if not word.isprintable() or word != word.strip() or not word:
        raise ValueError(f"the answer {word!r} must be one line of text, without spaces around it")
    return word


def _can_be_told_apart(answers: dict[Label, str]) -> dict[Label, str] | None:
    """Refuses answers of which one is, or starts, another: whoever reads the first cannot know
    which label is meant. None where they are the labels themselves.
    """
    for (label, word), (other, longer) in itertools.permutations(answers.items(), 2):
        if longer.casefold().startswith(word.casefold()):
            relation = "is" if len(longer) == len(word) else "starts"
            raise ValueError(
                f"the answer {word!r} for {label} {relation} that for {other} ({longer!r}); "
                "give each label a word that starts no other"
            )
    return None if all(label == word for label, word in answers.items()) else answers


Answers = Annotated[
    dict[Label, Annotated[str, Field(max_length=40), AfterValidator(_is_answer)]],
    EveryLabel,
    AfterValidator(_can_be_told_apart),
]


class PromptChoice(Strict):
    """What a model is asked, and the words that it answers with."""

    version: Literal[1, 2] = Field(
        default=1, description="1: the instruction; 2: also an answered example of each label"
    )
    answers: Answers | None = Field(
        default=None,
        description="the word, of at most 40 characters, that a model answers with for each label, e.g."
        ' `{ ED = "Emergency", GP = "Doctor", HOME = "Home" }`; without it the labels themselves',
    )
    vital_signs: Annotated[bool, OMITTED_AT_DEFAULT] = Field(
        default=False,
        description="write behind each vital sign of a message what it means, e.g. `SpO2 91 % (very low)`,"
        " by NEWS2 and, for children, PALS; that of the grid holds for the linear baseline, too",
    )

    @property
    def title(self) -> str:
        """The prompt in names, e.g. `prompt 2 emergency/doctor/home`; empty for the default one."""
        version = f"prompt {self.version}" if self.version > 1 else ""
        words = "/".join(self.answers[label] for label in LABELS) if self.answers else ""
        signs = "vital signs in words" if self.vital_signs else ""
        return " ".join(part for part in (version, words, signs) if part)


def byte_count(text: str) -> int:
    """Bytes of a text such as `4GB`, `500MB` or `1000000`. Raises ValueError if it is none."""
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a number of bytes such as 4GB or 500MB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _is_byte_count(text: str) -> str:
    byte_count(text)
    return text


Memory = Annotated[str, AfterValidator(_is_byte_count)]


class Training(Strict):
    """Settings that all recipes of a grid share."""

    group_size: Literal[32, 64, 128] = Field(
        default=64, description="values that share one quantisation scale"
    )
    num_layers: int = Field(default=16, ge=1, description="blocks with LoRA, counted from the last")
    target_modules: tuple[str, ...] = Field(
        default=("self_attn.q_proj", "self_attn.v_proj"),
        min_length=1,
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
    mask_prompt: Literal[True] = Field(default=True, description="the loss covers the answer alone")
    report_every: int = Field(default=50, ge=1, description="updates between reports of the loss")
    evaluate_every: int = Field(
        default=200, ge=1, description="updates between two evaluations on `valid`"
    )


_OF_TRAINING = Field(default=None, description="as in `[training]`, for this recipe alone")


class Recipe(Strict):
    """One named LoRA configuration; each model, precision and seed is trained under every recipe."""

    name: Name = Field(description="name of the recipe in ids and reports")
    kind: Literal["standard", "safety"] = Field(
        description="`safety` adds class weights and the expected cost of a decision to the loss"
    )
    learning_rate: float = Field(gt=0, lt=1, description="peak rate, after the warm-up")
    batch_size: int = Field(ge=1, le=64, description="cases per update: the effective batch")
    rank: int = Field(ge=1, le=256, description="rank of the LoRA matrices")
    scale: float = Field(
        gt=0, le=1000, description="multiplies the LoRA update; PEFT's alpha is scale x rank"
    )
    dropout: float = Field(ge=0, lt=1, description="LoRA dropout; with 0 no Monte Carlo dropout")
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
        default=None, description="as in `[safety]`, for this recipe alone"
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
        default=1.0, ge=0.01, le=1000, description="learning rate of B over that of A, as in LoRA+"
    )
    label_weight: Annotated[float, OMITTED_AT_DEFAULT] = Field(
        default=1.0, ge=0.01, le=100, description="weight of the label's tokens in the loss"
    )
    label_smoothing: Annotated[float, OMITTED_AT_DEFAULT] = Field(
        default=0.0, ge=0, lt=1, description="share of the label's loss spread over all labels"
    )
    sampling: Annotated[Sampling, OMITTED_AT_DEFAULT] = Field(
        default="natural",
        description="how often a label is drawn: as often as it stands in `train`, as often as each"
        " other, or by the square root of its share",
    )
    select_by: Annotated[SelectBy, OMITTED_AT_DEFAULT] = Field(
        default="loss",
        description="which adapter is evaluated: that of the lowest validation value, or of the"
        " highest macro-F1 on `valid`, which does not give up a rare label",
    )
    num_layers: Annotated[int | None, Field(ge=1), OMITTED_AT_DEFAULT] = _OF_TRAINING
    target_modules: Annotated[tuple[str, ...] | None, Field(min_length=1), OMITTED_AT_DEFAULT] = (
        _OF_TRAINING
    )
    decay: Annotated[Decay | None, OMITTED_AT_DEFAULT] = _OF_TRAINING
    warmup_ratio: Annotated[float | None, Field(ge=0, lt=1), OMITTED_AT_DEFAULT] = _OF_TRAINING
    max_gradient_norm: Annotated[float | None, Field(gt=0), OMITTED_AT_DEFAULT] = _OF_TRAINING
    evaluate_every: Annotated[int | None, Field(ge=1), OMITTED_AT_DEFAULT] = _OF_TRAINING
    prompt: Annotated[PromptChoice | None, OMITTED_AT_DEFAULT] = Field(
        default=None, description="as `[prompt]`, for this recipe alone"
    )
    seeds: Annotated[tuple[Seed, ...] | None, Field(min_length=1), EachOnce, OMITTED_AT_DEFAULT] = (
        Field(default=None, description="as the grid's `seeds`, for this recipe alone")
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


# Strict, since 4 and 8 make a range of whole numbers, and 4.0 and 8.0 one of real ones.
End = StrictInt | Annotated[FiniteFloat, Field(strict=True)]


class Range(Strict):
    """Values of a searched setting from `low` to `high`: whole numbers where both ends are whole."""

    low: End = Field(description="smallest value")
    high: End = Field(description="largest value")
    log: bool = Field(default=False, description="search evenly in the logarithm")

    @model_validator(mode="after")
    def _has_values(self) -> Range:
        if self.low >= self.high:
            raise ValueError(
                f"low = {self.low:g} is not below high = {self.high:g}; exchange them, or give a list"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs low above 0, and low is {self.low:g}")
        return self


Choices = Annotated[tuple[Any, ...], Field(min_length=1)]
Searched = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    # Without it a mistake in a range would also be reported as a mistake in a list.
    Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "choices"),
]


class Search(Strict):
    """Where `triage search` looks for a recipe; no experiment depends on it.

    Besides the keys below the table holds the searched settings, each by its dotted key, with a
    range or a list of choices: `"recipe.learning_rate" = { low = 1e-4, high = 1e-2, log = true }`,
    `"training.num_layers" = [4, 8, 16]`. They are keys of `[[recipe]]`, `[training]` and
    `[prompt]`. Refused are those that decide no training (such as `primary_rule`), the length of
    trials and their pauses (`iterations`, `patience`, `evaluate_every`), or what all trials share
    (`seeds`, `group_size`). `prompt.answers`, `label_weight` and `label_smoothing` change what a
    validation value measures, so a standard recipe that is compared by it cannot search them.
    """

    rungs: tuple[Fraction, ...] = Field(
        default=(0.125, 0.375),
        min_length=1,
        description="shares of a trial's updates after which it pauses, and only the best go on",
    )
    keep: Fraction = Field(default=0.4, description="share of the trials that go on at each pause")
    start_up_trials: int = Field(
        default=4, ge=1, le=1000, description="random trials before the sampler learns"
    )
    over_triage: Fraction = Field(
        default=0.3, description="over-triage at which a safety recipe's ED recall is taken"
    )
    seed: Seed = Field(default=42, description="seed of the proposals")
    settings: dict[str, Searched] = Field(
        default_factory=dict, description="the searched settings by dotted key"
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, values: Any) -> Any:
        """Moves every other key, and those of the tables that TOML makes of dotted ones, into
        `settings`: whoever knows all settings refuses a misspelt one.
        """
        if not isinstance(values, dict):
            return values

        gathered = {key: value for key, value in values.items() if key in cls.model_fields}
        settings = dict(gathered.get("settings", {}))
        for key, value in values.items():
            is_table = isinstance(value, dict) and value.keys().isdisjoint(Range.model_fields)
            if key not in gathered and is_table and "." not in key:
                settings |= {f"{key}.{name}": item for name, item in value.items()}
            elif key not in gathered:
                settings[key] = value

        return gathered | {"settings": dict(sorted(settings.items()))}

    @model_validator(mode="after")
    def _rungs_rise(self) -> Search:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rungs must rise, e.g. [0.125, 0.375]")
        return self
