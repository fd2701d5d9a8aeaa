"""Recipes: named LoRA configurations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.spec.base import OMITTED_AT_DEFAULT, Name, Seed, Strict
from tasks.spec.costs import ClassWeights, CostMatrix
from tasks.spec.prompt import PromptChoice

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
    select_by: Annotated[SelectBy, OMITTED_AT_DEFAULT] = Field(
        default="loss",
        description="which adapter is evaluated: that of the lowest validation value, or of the"
        " highest macro-F1 on `valid`, which does not give up a rare label",
    )
    num_layers: Annotated[int | None, Field(ge=1), OMITTED_AT_DEFAULT] = Field(
        default=None, description="as in `[training]`, for this recipe alone"
    )
    target_modules: Annotated[tuple[str, ...] | None, Field(min_length=1), OMITTED_AT_DEFAULT] = (
        Field(default=None, description="as in `[training]`, for this recipe alone")
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
    seeds: Annotated[tuple[Seed, ...] | None, Field(min_length=1), OMITTED_AT_DEFAULT] = Field(
        default=None, description="as the grid's `seeds`, for this recipe alone"
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
