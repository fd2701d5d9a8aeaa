"""What every engine of the training benchmark shares: the batch, the adapter it starts from, how gradients compare."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from tasks.corpus.encode import Encoded, Template
from tasks.corpus.prompts import load_prompt
from tasks.spec import LABELS, Recipe, Training
from tasks.tuning.batches import Cases, make_cases

Weights = dict[str, mx.array]
SEED = 0
COMPLETION = 3  # tokens: a label, the end of the turn, a line break
LEADING_SHARE = 4  # one token in so many belongs to the instruction that all prompts begin with
LARGEST_LORA_B = 0.02
FIRST_MOMENT = 0.9  # AdamW's first beta


@dataclass(frozen=True)
class Setting:
    """What is measured: `batch` cases of `length` tokens, LoRA on the last `layers` blocks, `repeats` timed steps."""

    engine: str
    variant: Path
    folder: Path
    batch: int
    length: int
    layers: int
    repeats: int

    @classmethod
    def of(cls, args: dict[str, Any]) -> Setting:
        """A setting from its fields as JSON."""
        return cls(**args | {key: Path(args[key]) for key in ("variant", "folder")})

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads((self.variant / "config.json").read_text(encoding="utf-8")))

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            name="bench", kind="standard", learning_rate=1e-5, batch_size=self.batch, rank=8, scale=20, dropout=0,
            iterations=1,
        )  # fmt: skip

    @property
    def training(self) -> Training:
        return Training(num_layers=self.layers)

    def optimizer(self) -> optim.AdamW:
        betas, decay = [FIRST_MOMENT, 0.999], self.training.weight_decay
        return optim.AdamW(self.recipe.learning_rate, betas=betas, weight_decay=decay)


@dataclass
class Measured:
    """Seconds of each timed step, bytes after loading, at the peak and cached after the last step, FLOPs of a step;
    gradients of the first step."""

    seconds: list[float]
    weights_memory_bytes: int
    peak_memory_bytes: int
    cache_memory_bytes: int
    matmul_flops: int
    gradients: Weights = field(repr=False)
    notes: list[str] = field(default_factory=list)
    prefix: dict[str, Any] | None = None


def bench_cases(vocabulary: int, batch: int, length: int) -> Cases:
    """`batch` cases of `length` random tokens, the last three of them the completion, with stock's mask.

    The prompts begin with the same tokens, as real ones do with the instruction.
    """
    rng = np.random.default_rng([SEED, vocabulary, batch, length])
    first = rng.choice(np.arange(1, vocabulary), len(LABELS), replace=False).tolist()
    end = rng.integers(1, vocabulary, COMPLETION - 1).tolist()
    template = Template(
        None, load_prompt(), False, tuple((f, *end) for f in first), (1,) * len(LABELS)
    )
    prompts = rng.integers(1, vocabulary, (batch, length - COMPLETION))
    prompts[:, : length // LEADING_SHARE] = prompts[0, : length // LEADING_SHARE]
    encoded = [
        Encoded(f"case-{i}", i % len(LABELS), tuple(row), False)
        for i, row in enumerate(prompts.tolist())
    ]
    return make_cases(template, encoded, stock_mask=True)


def start_adapter(model: nn.Module) -> None:
    """Give the LoRA tensors the same values in every engine: lora_b too, since at zero half the gradients vanish."""
    values = []
    for i, (name, old) in enumerate(sorted(tree_flatten(model.trainable_parameters()))):
        limit = LARGEST_LORA_B if name.endswith("lora_b") else 1 / math.sqrt(old.shape[0])
        values.append(
            (
                name,
                mx.array(
                    np.random.default_rng([SEED, i]).uniform(-limit, limit, old.shape), mx.float32
                ),
            )
        )
    model.load_weights(values, strict=False)
    mx.eval(model.parameters())


def first_gradients(optimizer: optim.Optimizer) -> Weights:
    """Gradients of the one step an optimizer has made: AdamW's first moment is then (1 - beta) times them."""
    found = {
        name.removesuffix(".m"): value / (1 - FIRST_MOMENT)
        for name, value in tree_flatten(optimizer.state)
        if name.endswith(".m")
    }
    mx.eval(found)
    return found


def largest_difference(ours: Weights, expected: Weights) -> float:
    """Over all tensors: the largest absolute difference divided by the tensor's largest value."""
    if ours.keys() != expected.keys():
        raise ValueError(
            f"the engines trained different tensors: {sorted(ours.keys() ^ expected.keys())[:3]}"
        )
    return max(
        float(np.array(mx.abs(ours[k] - expected[k]).max() / mx.abs(expected[k]).max()))
        for k in expected
    )
