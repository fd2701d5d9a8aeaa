"""The common ground of all engines of the training benchmark and of the self-test: batch, adapter to start
from, one update, comparison of gradients; and the work and speed of matrix products.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from pydantic import BaseModel, ConfigDict

from tasks.corpus.prompts import Encoded, Template, load_prompt
from tasks.spec import LABELS, Recipe, Training
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import CompiledUpdates, compiles
from tasks.tuning.data import EncodedCases, effective_batch, make_cases
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import Objective
from tasks.tuning.step import PlainUpdates

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
# AdamW's first beta.
FIRST_MOMENT = 0.9


class Setting(BaseModel):
    """One engine's training step, and what all engines derive from it: `batch` cases of `length`
    tokens, LoRA on the last `layers` blocks.

    `repeats`: timed steps.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    variant: Path
    folder: Path
    batch: int
    length: int
    layers: int
    repeats: int

    @property
    def config(self) -> dict[str, Any]:
        """The variant's `config.json`."""
        return dict(json.loads((self.variant / "config.json").read_text(encoding="utf-8")))

    @property
    def recipe(self) -> Recipe:
        return RECIPE.model_copy(update={"batch_size": self.batch})

    @property
    def training(self) -> Training:
        return Training(num_layers=self.layers)

    @property
    def cases(self) -> EncodedCases:
        """The benchmark's batch, see `bench_cases`."""
        return bench_cases(self.config["vocab_size"], self.batch, self.length)

    def optimizer(self) -> optim.AdamW:
        betas = [FIRST_MOMENT, 0.999]
        decay = self.training.weight_decay
        return optim.AdamW(self.recipe.learning_rate, betas=betas, weight_decay=decay)


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


def first_gradients(optimizer: optim.Optimizer) -> Weights:
    """Gradients of an optimizer's only step so far: AdamW's first moment is then (1 - beta) times
    them.
    """
    gradients = {
        name.removesuffix(".m"): value / (1 - FIRST_MOMENT)
        for name, value in tree_flatten(optimizer.state)
        if name.endswith(".m")
    }
    mx.eval(gradients)
    return gradients


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


PRODUCTS = ("Matmul", "AddMM", "QuantizedMatmul")
SPEED_REPEATS = 15


def matmul_flops(model: nn.Module, loss: Callable[[nn.Module], mx.array]) -> int:
    """FLOPs of all matrix products in loss and gradients, counted in the graph that MLX builds for
    them.

    A product of (..., M, K) and (K, N) counts 2 M N K. Products that no gradient needs are not in
    the graph.
    """
    weights: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
    value_and_gradient = nn.value_and_grad(model, loss)

    def step(**parameters: mx.array) -> list[mx.array]:
        model.update(tree_unflatten(list(parameters.items())))
        value, gradients = value_and_gradient(model)
        return [value, *(gradient for _, gradient in tree_flatten(gradients))]

    nodes: list[dict[str, Any]] = []
    # The graph is the CPU's: a GPU's has fused operations, which MLX cannot export. Nothing is
    # computed.
    with mx.stream(mx.cpu):
        mx.export_function(nodes.append, step, **weights)  # type: ignore[arg-type]  # keywords are the step's
    model.update(tree_unflatten(list(weights.items())))

    flops = 0
    for node in nodes:
        if node.get("name") in PRODUCTS:
            _, left_shape, _ = node["inputs"][0]
            _, shape, _ = node["outputs"][0]
            flops += 2 * math.prod(shape) * int(left_shape[-1])
    return flops


def matmul_speed(rows: int, inner: int, columns: int) -> float:
    """Median speed in GFLOP/s of float32 products (rows, inner) x (inner, columns), laid out as a
    linear layer's.
    """
    x = mx.array(np.random.default_rng(0).random((rows, inner), np.float32))
    weight = mx.array(np.random.default_rng(0).random((columns, inner), np.float32))
    mx.eval(x @ weight.T)

    seconds = []
    for _ in range(SPEED_REPEATS):
        start = time.perf_counter()
        mx.eval(x @ weight.T)
        seconds.append(time.perf_counter() - start)

    return float(2 * rows * inner * columns / np.median(seconds) / 1e9)


def updates_of(
    adapted: Adapted,
    prefix: Prefix,
    objective: Objective,
    optimizer: optim.Optimizer,
    learning_rate: float,
    dropout_seed: int | None = None,
) -> Callable[[], None]:
    """A function that makes one update of all cases at each call, as a training does, and waits for it.

    `dropout_seed`: None for an update without dropout.
    """
    model = adapted.stack.model
    optimizer.init(model.trainable_parameters())
    cases = prefix.cases
    count = len(cases.encoded)
    kind = CompiledUpdates if compiles() else PlainUpdates
    updates = kind(adapted, prefix, objective, optimizer, None)
    numbers = itertools.count()

    def update() -> None:
        key = None if dropout_seed is None else (dropout_seed, next(numbers))
        updates.start(effective_batch(cases, range(count), count, key), learning_rate)
        updates.hand_back()
        mx.eval(model.trainable_parameters(), optimizer.state)

    return update
