"""One update of a training from top to bottom: its parts and their dropout masks, loss, gradients,
clipping, optimizer. `compiled.py` makes the same update as a compiled graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from tasks.spec import ExperimentSpec
from tasks.tuning.activations import Prefix
from tasks.tuning.data import Batch, EncodedCases, make_batch, padded_length
from tasks.tuning.dropout import MaskRequest
from tasks.tuning.forward import batch_terms, joined_terms, leading_past
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import Objective, objective_sum, scored_tokens

# Norm of an exploding gradient: in healthy runs it stays below a thousand.
EXPLODED = 1e6
# The place of the leading tokens in a dropout key: no case of a batch has it.
LEADING = (1 << 31) - 1

DropoutKey = tuple[int, int]  # (seed, update)
Gradients = Any  # a tree of arrays, shaped as the trainable parameters


@dataclass(frozen=True)
class UpdateResult:
    """What an update gives: its loss, the parts (3,) of it, and the norm of its gradient before
    clipping. Reading a value waits for the device.
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
    """Cases of an effective batch that are computed at once, from its case `start` on, and the
    dropout masks that they take.
    """

    batch: Batch
    start: int
    key: DropoutKey | None
    requests: tuple[MaskRequest, ...]


@dataclass
class Updates:
    """The updates of a model, each made at once.

    `limit`: the largest norm of a gradient, or None. `micro_batch`: cases computed at once.
    """

    adapted: Adapted
    prefix: Prefix
    objective: Objective
    optimizer: optim.Optimizer
    micro_batch: int
    limit: float | None

    are_compiled = False
    # The cases and the key of the update whose parts were asked for last, and these.
    _described: tuple[Any, list[Part]] = (None, [])

    def start(
        self,
        case_numbers: Sequence[int],
        rate: float,
        dropout_key: DropoutKey | None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> UpdateResult:
        """Make an update, unless it diverges: weights and moments then stay as they were.

        `meanwhile` is called once the update has taken its dropout masks, before it is computed.
        """
        loss, parts, gradients = update_gradients(
            self.adapted, self.prefix, case_numbers, self.objective, self.micro_batch, dropout_key
        )
        meanwhile()
        # With two evaluations: one before the host decides on clipping, and the optimizer's.
        gradients, norm = clip_gradients(gradients, self.limit, (loss, parts))
        result = UpdateResult(loss, parts, mx.array(norm))
        if result.problem is None:
            model = self.adapted.stack.model
            self.optimizer.learning_rate = rate
            self.optimizer.update(model, gradients)
            mx.eval(model.trainable_parameters(), self.optimizer.state)

        return result

    def hand_back(self) -> None:
        """Put the trained tensors and the optimizer's state where validation and checkpoints read
        them: they are there.
        """

    def mask_requests(
        self, case_numbers: Sequence[int], dropout_key: DropoutKey | None
    ) -> list[MaskRequest]:
        """The dropout masks that an update takes, in their order."""
        return [r for part in self.parts(case_numbers, dropout_key) for r in part.requests]

    def parts(self, case_numbers: Sequence[int], dropout_key: DropoutKey | None) -> list[Part]:
        """The parts of an update: those that were asked for last are kept."""
        update = (tuple(case_numbers), dropout_key)
        if self._described[0] != update:
            parts = []
            for start, batch in parts_of(self.prefix.cases, case_numbers, self.micro_batch):
                requests: tuple[MaskRequest, ...] = ()
                if dropout_key is not None:
                    requests = tuple(self._requests(batch, start, dropout_key))
                parts.append(Part(batch, start, dropout_key, requests))
            self._described = (update, parts)

        return self._described[1]

    def _requests(self, batch: Batch, start: int, dropout_key: DropoutKey) -> Iterator[MaskRequest]:
        adapted = self.adapted
        cases = self.prefix.cases
        leading = ((*dropout_key, LEADING), cases.leading)
        is_joined = adapted.stack.joins(cases.leading)
        keys = _case_keys(dropout_key, batch, start, cases)
        if cases.leading > 0 and not is_joined:
            for module in adapted.dropouts:
                if adapted.is_everywhere(module):
                    yield module.request([leading[0]], cases.leading)

        for module in adapted.dropouts:
            everywhere = adapted.is_everywhere(module)
            # In the pruned last block most modules see the scored rows alone.
            positions = batch.length - cases.leading if everywhere else batch.targets.shape[1]
            yield module.request(keys, positions, leading if is_joined and everywhere else None)


def update_gradients(
    adapted: Adapted,
    prefix: Prefix,
    case_numbers: Sequence[int],
    objective: Objective,
    micro_batch: int,
    dropout_key: DropoutKey | None,
) -> tuple[mx.array, mx.array, Gradients]:
    """Loss, its parts (3,) and LoRA gradients of one effective batch, computed `micro_batch` cases
    at a time.

    The common leading tokens (the instruction) pass through the trained blocks once for all cases
    of a part: attention is causal, so they are the same for each case, and their gradient is the
    sum over the cases.

    `dropout_key` is (seed, update). A case's mask depends on its position in the effective batch,
    and the leading tokens have one mask per update, so the micro-batch changes nothing but memory.

    The last part is not evaluated yet: who reads the results evaluates them in one graph with what
    else is made of them.
    """
    cases = prefix.cases
    model = adapted.stack.model
    sizes = scored_tokens(cases, case_numbers), len(case_numbers)
    loss_of = partial(part_loss, adapted, prefix, objective, sizes, dropout_key)
    value_and_gradient = nn.value_and_grad(model, loss_of)
    parameters = model.trainable_parameters()

    total = mx.array(0.0)
    parts = mx.zeros(3)
    gradients = None
    for start, batch in parts_of(cases, case_numbers, micro_batch):
        (loss, loss_parts), gradient = value_and_gradient(batch, start)
        gradients = gradient if gradients is None else tree_map(mx.add, gradients, gradient)
        total = total + loss
        parts = parts + loss_parts
        # One part after the other: a graph of several holds the activations of all of them.
        if start + micro_batch < len(case_numbers):
            mx.eval(total, parts, gradients)

    # Differentiation leaves its own copies of the parameters in the model.
    model.update(parameters)
    return total, parts, gradients


def parts_of(
    cases: EncodedCases, case_numbers: Sequence[int], micro_batch: int
) -> Iterator[tuple[int, Batch]]:
    """The parts of an effective batch, padded to one length, with the place of their first case."""
    length = padded_length(cases.rows_of(case_numbers))
    for start in range(0, len(case_numbers), micro_batch):
        yield start, make_batch(cases, case_numbers[start : start + micro_batch], length)


def part_loss(
    adapted: Adapted,
    prefix: Prefix,
    objective: Objective,
    sizes: Sequence[int | mx.array],
    key: DropoutKey | None,
    part: Batch,
    start: int,
    stored: tuple[mx.array, mx.array] | None = None,
) -> tuple[mx.array, mx.array]:
    """Loss and parts (3,) of the cases `start`, `start` + 1, ... of an effective batch.

    `sizes`: the scored tokens and the cases of that batch; `key`: that of its dropout masks;
    `stored`: what the prefix stores of them (`Prefix.stored`), if the caller has read it.
    """
    cases = prefix.cases
    leading, own_rows = stored or prefix.stored(part.rows, part.length)
    leading_key = (*key, LEADING) if key else None
    case_keys = _case_keys(key, part, start, cases) if key else None

    if adapted.stack.joins(cases.leading):
        adapted.set_dropout(case_keys, (leading_key, cases.leading) if leading_key else None)
        terms = joined_terms(adapted, prefix, part, leading, own_rows)
    else:
        # The instruction first, then each case's own tokens.
        past = leading_past(adapted, prefix, leading_key)
        adapted.set_dropout(case_keys)
        terms = batch_terms(adapted, prefix, part, past, own_rows)

    adapted.set_dropout(None)
    return objective_sum(terms, part.labels, objective, *sizes)


def _case_keys(
    dropout_key: DropoutKey, part: Batch, start: int, cases: EncodedCases
) -> list[tuple[int, ...]]:
    """The dropout key of each row of a part whose first case is the batch's case `start`."""
    return [(*dropout_key, start + i // cases.per_case) for i in range(len(part.rows))]


def clip_gradients(
    gradients: Gradients, limit: float | None, other_arrays: Sequence[mx.array] = ()
) -> tuple[Gradients, float]:
    """Gradients with at most the norm `limit` over all tensors, and their norm before clipping.

    `other_arrays` are evaluated with them: each evaluation waits for the device.
    """
    sums = mx.stack([mx.square(g).sum() for _, g in tree_flatten(gradients)])
    mx.eval(sums, gradients, other_arrays)
    # In float64 and in the order of the tensors.
    norm = float(np.sqrt(sum(np.array(sums).tolist())))
    # `not >`: gradients whose norm is NaN go back as they are, and the caller refuses them.
    if limit is None or not norm > limit:
        return gradients, norm
    return tree_map(lambda g: g * (limit / norm), gradients), norm


def learning_rate(spec: ExperimentSpec, update: int) -> float:
    """Learning rate of optimizer update `update`, counted from 0.

    Linear warm-up, then constant or falling towards 0 after the last update: neither the first
    update nor the last is lost to a rate of 0.
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
    """The optimizer of a training: AdamW, with a rate of its own for B where the recipe asks."""
    ratio = spec.recipe.lora_plus
    return _adamw(spec) if ratio == 1 else FactorRates(_adamw(spec), _adamw(spec), ratio)


def _adamw(spec: ExperimentSpec) -> optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with bias correction, which is off by default in MLX."""
    return optim.AdamW(
        learning_rate=spec.recipe.learning_rate,
        weight_decay=spec.training.weight_decay,
        bias_correction=True,
    )
