"""What a training step is on every machine: the parts of its effective batch and their dropout
masks, its result, its learning rate and its optimizer. How it is computed: `step.py` and
`compiled.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from tasks.spec import ExperimentSpec
from tasks.tuning.activations import Prefix
from tasks.tuning.data import Batch, Row, make_batch, padded_length
from tasks.tuning.dropout import Key, MaskRequest
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import Objective, scored_tokens

# Norm of an exploding gradient: in healthy runs it stays below a thousand.
EXPLODED = 1e6
# The place of the leading tokens in a dropout key: no case of a batch has it.
LEADING = (1 << 31) - 1

DropoutKey = tuple[int, int]  # (seed, update)


@dataclass(frozen=True)
class UpdateResult:
    """The loss of an update, the parts (3,) of it, and the norm of its gradient before clipping.

    Reading a value waits for the device.
    """

    loss: mx.array
    parts: mx.array
    norm: mx.array

    @property
    def value(self) -> float:
        """The loss."""
        return float(np.array(self.loss))

    @property
    def problem(self) -> str | None:
        """Why the training diverged here: a loss that is not finite, or an exploding gradient."""
        norm = float(np.array(self.norm))
        if not math.isfinite(self.value):
            return f"The loss became {self.value}"
        # `not <`: NaN is refused too.
        return None if norm < EXPLODED else f"The gradient's norm became {norm:.3g}"


@dataclass(frozen=True)
class Part:
    """Cases of an effective batch that are computed at once, and the dropout masks that they take.

    The leading tokens have one mask per update, and a case's depends on its place in the batch.
    """

    batch: Batch
    leading_key: Key | None
    case_keys: list[Key] | None
    requests: tuple[MaskRequest, ...]


@dataclass(frozen=True)
class EffectiveBatch:
    """The cases of an update, in parts, and how many tokens of them are scored."""

    parts: tuple[Part, ...]
    tokens: int
    cases: int

    @property
    def requests(self) -> list[MaskRequest]:
        """The dropout masks that an update takes, in their order."""
        return [request for part in self.parts for request in part.requests]

    @property
    def rows(self) -> list[Row]:
        return [row for part in self.parts for row in part.batch.rows]


def effective_batch(
    adapted: Adapted,
    prefix: Prefix,
    case_numbers: Sequence[int],
    micro_batch: int,
    key: DropoutKey | None,
) -> EffectiveBatch:
    """An effective batch in parts of `micro_batch` cases, padded to one length."""
    cases = prefix.cases
    length = padded_length(cases.rows_of(case_numbers))
    parts = []
    for start in range(0, len(case_numbers), micro_batch):
        batch = make_batch(cases, case_numbers[start : start + micro_batch], length)
        if key is None:
            parts.append(Part(batch, None, None, ()))
            continue

        leading_key = (*key, LEADING)
        case_keys: list[Key] = [(*key, start + i // cases.per_case) for i in range(len(batch.rows))]
        requests = tuple(_requests(adapted, cases.leading, batch, leading_key, case_keys))
        parts.append(Part(batch, leading_key, case_keys, requests))

    return EffectiveBatch(tuple(parts), scored_tokens(cases, case_numbers), len(case_numbers))


def _requests(
    adapted: Adapted, leading: int, batch: Batch, leading_key: Key, case_keys: list[Key]
) -> Iterator[MaskRequest]:
    """The dropout masks of a batch, whose rows begin with so many leading tokens."""
    # On a CPU the leading tokens go through the blocks first; else they are in one row with the others.
    in_row = None if adapted.stack.cpu_kernels else (leading_key, leading)
    if in_row is None:
        for module in filter(adapted.is_everywhere, adapted.dropouts):
            yield module.request([leading_key], leading)

    for module in adapted.dropouts:
        if adapted.is_everywhere(module):
            yield module.request(case_keys, batch.length - leading, in_row)
        else:
            # In the pruned last block most modules see the scored rows alone.
            yield module.request(case_keys, batch.targets.shape[1])


@dataclass
class Updates:
    """The updates of a model. `limit`: the largest norm of a gradient, or None."""

    adapted: Adapted
    prefix: Prefix
    objective: Objective
    optimizer: optim.Optimizer
    limit: float | None


def learning_rate(spec: ExperimentSpec, update: int) -> float:
    """Learning rate of optimizer update `update`, counted from 0: linear warm-up, then constant or
    falling towards 0 after the last update.
    """
    peak = spec.recipe.learning_rate
    iterations = spec.recipe.iterations
    warmup = round(spec.training.warmup_ratio * iterations)
    if update < warmup:
        return peak * (update + 1) / warmup

    decayed_share = (update - warmup) / (iterations - warmup)
    factors = {
        "none": 1.0,
        "linear": 1 - decayed_share,
        "cosine": 0.5 * (1 + math.cos(math.pi * decayed_share)),
    }
    return peak * factors[spec.training.decay]


class FactorRates(optim.MultiOptimizer):
    """An optimizer of the factors B and one of the others, whose rate is the one that is set.

    That of B is `ratio` times as large (LoRA+, Hayou et al. 2024), for its weight decay too.
    """

    def __init__(self, of_b: optim.Optimizer, of_a: optim.Optimizer, ratio: float) -> None:
        # What no filter takes, the factors A, goes to MLX's last optimizer.
        super().__init__([of_b, of_a], [lambda path, _: path.endswith("lora_b")])
        self._ratio = ratio

    @property
    def learning_rate(self) -> mx.array:
        """The rate of A."""
        rate: mx.array = self.optimizers[1].learning_rate
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.optimizers[0].learning_rate = self._ratio * rate
        self.optimizers[1].learning_rate = rate


def make_optimizer(spec: ExperimentSpec) -> optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), with a rate of its own for B where the recipe asks."""

    def adamw() -> optim.AdamW:
        # MLX's default leaves bias correction out.
        return optim.AdamW(
            learning_rate=spec.recipe.learning_rate,
            weight_decay=spec.training.weight_decay,
            bias_correction=True,
        )

    ratio = spec.recipe.lora_plus
    return adamw() if ratio == 1 else FactorRates(adamw(), adamw(), ratio)
