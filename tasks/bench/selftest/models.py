"""The models of the self-test: tiny ones that are created, quantised and loaded like real ones, and
models of real widths in memory, all with random weights; a batch of random cases, and the adapter that
every engine starts from, which the authors' benchmarks share; and a named check.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama
from mlx_lm.tuner.trainer import default_loss

from tasks.corpus.prompts import Encoded, Template, load_prompt
from tasks.models.convert import run_quantize
from tasks.models.sizes import shape_entry
from tasks.models.sources.fetch import fetch_base
from tasks.runtime.backend import backend
from tasks.runtime.home import without_folders
from tasks.spec import LABELS, BaseModelSpec, RandomSource, Recipe, Training
from tasks.tuning.activations import Prefix
from tasks.tuning.data import EncodedCases, effective_batch, make_batch, make_cases, padded_tokens
from tasks.tuning.lora import Adapted, add_lora, as_computed, load_variant
from tasks.tuning.loss import make_objective
from tasks.tuning.model import Stack
from tasks.tuning.step import update_gradients

Weights = dict[str, mx.array]
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

DIFFERENCE = "relative difference"
WRONG = (
    "run `uv sync` to get the versions that the study was tested with; if it stays, report it "
    "with the file below"
)


@dataclass(frozen=True)
class SelfTestCheck:
    """A check that passes if `measure` returns at most `limit`, or with `at_least`, no less."""

    name: str
    measure: Callable[[], float]
    limit: float
    unit: str = DIFFERENCE
    level: Literal["warning", "error"] = "error"
    remedy: str = WRONG
    at_least: bool = False

    def run(self) -> dict[str, Any]:
        """Measure and judge. An error is a result too: the other checks go on.

        `value` is None where the check ended in an error, whose words `error` holds; `seconds`: how
        long it took.
        """
        start = time.perf_counter()
        value = None
        error = ""
        try:
            value = float(self.measure())
        # Whatever a kernel that this machine lacks raises.
        except Exception as exception:
            error = without_folders(f"{type(exception).__name__}: {exception}")[:300]

        # JSON has no NaN, which no check passes.
        if value is not None and not math.isfinite(value):
            error = f"the result is {value}"
            value = None

        ok = value is not None and (value >= self.limit if self.at_least else value <= self.limit)
        return {
            **{name: getattr(self, name) for name in ("name", "limit", "unit", "level", "remedy")},
            "ok": ok,
            "value": value,
            "seconds": round(time.perf_counter() - start, 3),
            "error": error,
        }


def distance(a: Any, b: Any) -> float:
    """Root mean square difference of two arrays, relative to the second, in float64; 0 where they
    are equal to the bit.
    """
    first, second = (np.array(x.astype(mx.float32), np.float64) for x in (a, b))
    difference = np.linalg.norm(first - second)
    return float(difference / np.linalg.norm(second)) if difference else 0.0


def relative_to_spread(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference of two arrays, relative to how far the rows of the second, along
    its first axis, lie from their mean.
    """
    return float(np.linalg.norm(a - b) / np.linalg.norm(b - b.mean(axis=0)))


def farthest(tensors: dict[str, Any], other_tensors: dict[str, Any]) -> float:
    """The largest `distance` over arrays of the same names."""
    if tensors.keys() != other_tensors.keys():
        raise ValueError(f"different tensors: {sorted(tensors.keys() ^ other_tensors.keys())[:3]}")
    return max(distance(tensors[name], other_tensors[name]) for name in other_tensors)


CASES = 3
LENGTH = 48
# Groups of another size than those of the models of real widths, so that no size is taken for granted.
TRAINING = Training(num_layers=2, group_size=32)


def recipe(dropout: float = 0.0) -> Recipe:
    """A small recipe."""
    changes = {"learning_rate": 1e-4, "batch_size": CASES, "rank": 4, "scale": 5.0}
    return RECIPE.model_copy(update=changes | {"dropout": dropout})


def random_weights(name: str) -> BaseModelSpec:
    """A base model with the shape of a known one."""
    source = RandomSource(kind="random", shape=name)
    return BaseModelSpec(name=name, licence="Apache-2.0", sources=(source,))


@dataclass(frozen=True)
class Subject:
    """A tiny model, made in `root` and quantised at its first use; reloaded, since each check
    changes it.
    """

    name: str
    bits: int
    root: Path

    @property
    def title(self) -> str:
        return f"{self.name} {self.bits}bit"

    @cached_property
    def folder(self) -> Path:
        source = fetch_base(random_weights(self.name), self.root)
        args = {"bits": self.bits, "group_size": TRAINING.group_size}
        return Path(run_quantize({"source": source, "root": self.root, **args})["folder"])

    def packed(self, dtype: mx.Dtype | None = None) -> Stack:
        """As it is stored, or with its scales and norms in another data type."""
        stack = load_variant(self.folder, "packed")
        if dtype is not None:
            stack.model.set_dtype(dtype)
        return stack

    def dense(self) -> Stack:
        """Unpacked to float32."""
        return load_variant(self.folder, "dequantised_f32")

    def loaded(self) -> Stack:
        """As a training here loads it."""
        return load_variant(self.folder, backend().compute_path)


def make_model(name: str, bits: int = 4, **changes: int) -> Stack:
    """A model of a real one's widths on this backend's compute path; `changes`: to its config.json."""
    mx.random.seed(0)
    config = shape_entry(name)["config"] | changes
    if config["model_type"] == "llama":
        model = llama.Model(llama.ModelArgs.from_dict(config))
    else:
        model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
        model.tie_word_embeddings = True
        model.pop("lm_head")
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, group_size=Training().group_size, bits=bits)
    return as_computed(model, backend().compute_path)


def adapt(stack: Stack, dropout: float = 0.0) -> Adapted:
    """LoRA with the same values in every model."""
    adapted = add_lora(stack, recipe(dropout), TRAINING, seed=0)
    start_adapter(stack.model)
    return adapted


def cases_of(stack: Stack, count: int = CASES, length: int = LENGTH) -> EncodedCases:
    """Random cases for a model's vocabulary, with stock's mask."""
    return bench_cases(stack.model.args.vocab_size, count, length)


def bench_cases(vocabulary: int, batch: int, length: int) -> EncodedCases:
    """`batch` cases of `length` random tokens, the last three of them the completion, with stock's
    mask.

    The prompts begin with the same tokens, as real ones do with the instruction.
    """
    rng = np.random.default_rng([vocabulary, batch, length])
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
        draws = np.random.default_rng(i).uniform(-limit, limit, parameter.shape)
        values.append((name, mx.array(draws, mx.float32)))
    model.load_weights(values, strict=False)
    mx.eval(model.parameters())


def outputs(stack: Stack) -> mx.array:
    """Logits (CASES, LENGTH, V) in float32 for fixed random tokens."""
    tokens = np.random.default_rng(0).integers(1, stack.model.args.vocab_size, (CASES, LENGTH))
    return stack.model(mx.array(tokens.astype(np.int32))).astype(mx.float32)


def stock_gradients(adapted: Adapted, cases: EncodedCases) -> Weights:
    """LoRA gradients of mlx_lm.tuner.trainer.default_loss, with its `loss`."""
    tokens, lengths = stock_batch(cases)
    step = nn.value_and_grad(
        adapted.stack.model, lambda model: default_loss(model, tokens, lengths)[0]
    )
    loss, gradients = step(adapted.stack.model)
    return {"loss": loss, **dict(tree_flatten(gradients))}


def stock_batch(cases: EncodedCases) -> tuple[mx.array, mx.array]:
    """Tokens and lengths of all cases, as stock's loss takes them."""
    rows = make_batch(cases, range(len(cases.encoded))).rows
    longest = max(len(row.inputs) for row in rows)
    tokens = padded_tokens([row.inputs for row in rows], longest + 1)
    return mx.array(tokens), mx.array([(row.first + 1, len(row.inputs)) for row in rows])


def our_gradients(
    adapted: Adapted, cases: EncodedCases, dropout_key: tuple[int, int] | None = None
) -> Weights:
    """LoRA gradients of the training engine, with its `loss`."""
    prefix = Prefix(adapted.stack, cases)
    objective = make_objective(recipe(), cases.labels)
    count = len(cases.encoded)
    batch = effective_batch(cases, range(count), count, dropout_key)
    loss, _, gradients = update_gradients(adapted, prefix, batch, objective)
    return {"loss": loss, **dict(tree_flatten(gradients))}
