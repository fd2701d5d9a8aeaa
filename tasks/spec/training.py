"""Settings that all trainings of a grid share."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.spec.base import Strict
from tasks.spec.recipe import Decay


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
    num_layers: int = Field(
        default=16, ge=1, description="number of blocks with LoRA, counted from the last"
    )
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
    mask_prompt: Literal[True] = Field(
        default=True, description="the loss covers the answer only, never the prompt"
    )
    report_every: int = Field(
        default=50, ge=1, description="updates between two reports of the training loss"
    )
    evaluate_every: int = Field(
        default=200, ge=1, description="updates between two evaluations on `valid`"
    )
