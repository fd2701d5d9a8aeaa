"""What the self-test and the authors' benchmarks share: a small recipe, a batch of random cases, the adapter
that every engine starts from, and the comparison of two engines' tensors.
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from tasks.corpus.prompts import Encoded, Template, load_prompt
from tasks.spec import LABELS, Recipe
from tasks.tuning.data import EncodedCases, make_cases

Weights = dict[str, mx.array]
SEED = 0
# Tokens of a completion: a label, the end of the turn, a line break.
COMPLETION = 3
# One token in four belongs to the instruction that all prompts begin with.
LEADING_FRACTION = 4
LARGEST_LORA_B = 0.02
# Of all benchmarks and of the self-test, which change what they vary.
RECIPE = Recipe(
    name="bench",
    kind="standard",
    learning_rate=1e-5,
    batch_size=4,
    rank=8,
    scale=20,
    dropout=0,
    iterations=1,
)


def bench_cases(vocabulary: int, batch: int, length: int) -> EncodedCases:
    """`batch` cases of `length` random tokens, the last three of them the completion, with stock's
    mask.

    The prompts begin with the same tokens, as real ones do with the instruction.
    """
    rng = np.random.default_rng([SEED, vocabulary, batch, length])
    first_tokens = rng.choice(np.arange(1, vocabulary), len(LABELS), replace=False).tolist()
    end = rng.integers(1, vocabulary, COMPLETION - 1).tolist()
    completions = tuple((first, *end) for first in first_tokens)
    template = Template(None, load_prompt(), False, completions, (1,) * len(LABELS))

    prompts = rng.integers(1, vocabulary, (batch, length - COMPLETION))
    leading = length // LEADING_FRACTION
    prompts[:, :leading] = prompts[0, :leading]
    encoded = [
        Encoded(f"case-{i}", i % len(LABELS), tuple(prompt), False)
        for i, prompt in enumerate(prompts.tolist())
    ]

    return make_cases(template, encoded, stock_mask=True)


def start_adapter(model: nn.Module) -> None:
    """Give the LoRA tensors the same values in every engine: lora_b too, since at zero half the
    gradients vanish.
    """
    values = []
    for i, (name, parameter) in enumerate(sorted(tree_flatten(model.trainable_parameters()))):
        limit = LARGEST_LORA_B if name.endswith("lora_b") else 1 / math.sqrt(parameter.shape[0])
        draws = np.random.default_rng([SEED, i]).uniform(-limit, limit, parameter.shape)
        values.append((name, mx.array(draws, mx.float32)))
    model.load_weights(values, strict=False)
    mx.eval(model.parameters())


def largest_difference(weights: Weights, expected_weights: Weights) -> float:
    """Over all tensors: the largest absolute difference divided by the tensor's largest value."""
    if weights.keys() != expected_weights.keys():
        different = sorted(weights.keys() ^ expected_weights.keys())[:3]
        raise ValueError(f"the engines trained different tensors: {different}")
    return max(
        float(
            np.array(
                mx.abs(weights[k] - expected_weights[k]).max() / mx.abs(expected_weights[k]).max()
            )
        )
        for k in expected_weights
    )
