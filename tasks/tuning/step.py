"""One training step on a CPU from top to bottom: the parts of its effective batch, the instruction
and then each case's own tokens through the trained blocks, loss, gradients, clipping, optimizer; and
the scores of a whole set, which take the same way without gradients.

Only completion positions reach the final norm and the head, the last block computes only those
rows, and the blocks below the first LoRA block are read from the cached activations if they are
stored. `compiled.py` has the step for a GPU, whose forward pass packed weights take here too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from tasks.judging import point_metrics
from tasks.spec import ExperimentSpec
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import joined_terms
from tasks.tuning.data import (
    TOKENS_AT_ONCE,
    Batch,
    EffectiveBatch,
    EncodedCases,
    Key,
    make_batch,
    sorted_batches,
)
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import LossTerms, Objective, case_terms, objective_sum
from tasks.tuning.model import SharedPast, keys_and_values, last_rows, run_blocks, side_by_side

Gradients = Any  # a tree of arrays, shaped as the trainable parameters


@dataclass
class PlainUpdates:
    """Updates that are each made at once. `limit`: the largest norm of a gradient, or None."""

    adapted: Adapted
    prefix: Prefix
    objective: Objective
    optimizer: optim.Optimizer
    limit: float | None

    are_compiled = False

    def start(self, batch: EffectiveBatch, rate: float) -> tuple[mx.array, mx.array, mx.array]:
        """Make an update: its loss, the parts (3,) of it, and the norm of its gradient before
        clipping.
        """
        loss, parts, gradients = update_gradients(self.adapted, self.prefix, batch, self.objective)
        # With two evaluations: one before the host decides on clipping, and the optimizer's.
        gradients, norm = clip_gradients(gradients, self.limit, (loss, parts))
        model = self.adapted.stack.model
        self.optimizer.learning_rate = rate
        self.optimizer.update(model, gradients)
        mx.eval(model.trainable_parameters(), self.optimizer.state)
        return loss, parts, mx.array(norm)

    def hand_back(self) -> None:
        """As of compiled updates: tensors and state are where validation and checkpoints read them."""


def update_gradients(
    adapted: Adapted, prefix: Prefix, batch: EffectiveBatch, objective: Objective
) -> tuple[mx.array, mx.array, Gradients]:
    """Loss, its parts (3,) and LoRA gradients of an effective batch. The last part of the batch is not
    evaluated; how many parts there are changes nothing but memory.
    """

    def loss_of(part: Batch) -> tuple[mx.array, mx.array]:
        if adapted.stack.cpu_kernels:
            # The instruction first, then each case's own tokens.
            past = leading_past(adapted, prefix, part.leading_key)
            adapted.set_dropout(part.case_keys)
            terms = batch_terms(adapted, prefix, part, past)
        else:
            terms = joined_terms(adapted, prefix, part, prefix.stored(part.rows, part.length))

        adapted.set_dropout(None)
        return objective_sum(terms, part.labels, objective, batch.tokens, batch.cases)

    model = adapted.stack.model
    value_and_gradient = nn.value_and_grad(model, loss_of)
    parameters = model.trainable_parameters()

    total = mx.array(0.0)
    loss_parts = mx.zeros(3)
    gradients = None
    for part in batch.parts:
        (loss, its_parts), gradient = value_and_gradient(part)
        gradients = gradient if gradients is None else tree_map(mx.add, gradients, gradient)
        total = total + loss
        loss_parts = loss_parts + its_parts
        # One part after the other: a graph of several holds the activations of all of them.
        if part is not batch.parts[-1]:
            mx.eval(total, loss_parts, gradients)

    # Differentiation leaves its own copies of the parameters in the model.
    model.update(parameters)
    return total, loss_parts, gradients


def leading_past(
    adapted: Adapted, prefix: Prefix, dropout_key: Key | None = None
) -> list[SharedPast | None]:
    """Keys and values of the common leading tokens (the instruction) in each trained block, not
    evaluated. Attention is causal, so they are the same for each case.
    """
    stack = adapted.stack
    start = prefix.boundary
    if prefix.cases.leading == 0:
        return [None] * stack.depth

    last = stack.depth - 1
    past = [SharedPast() if i >= start else None for i in range(last)]
    adapted.set_dropout([dropout_key] if dropout_key else None)
    hidden = run_blocks(stack, prefix.enter(prefix.stored_leading()), start, last, past)
    # The last block gives keys and values alone, since no leading token is scored.
    layer = stack.layers[last]
    keys, values = keys_and_values(layer.self_attn, layer.input_layernorm(hidden), 0)
    # Masks were taken while the graph was built, so dropout may go off before it is computed.
    adapted.set_dropout(None)

    return [*past, SharedPast(keys, values)]


def batch_terms(
    adapted: Adapted, prefix: Prefix, batch: Batch, past: list[SharedPast | None]
) -> LossTerms:
    """Loss terms of a batch whose leading tokens are already in `past`."""
    stack = adapted.stack
    hidden = prefix.hidden(batch.rows, batch.length)
    hidden = run_blocks(stack, hidden, prefix.boundary, stack.depth - 1, past)

    # Of the last block keys and values are needed at every position, the rest where a row is scored.
    layer = stack.layers[-1]
    leading = past[-1]
    normed = layer.input_layernorm(hidden)
    keys, values = keys_and_values(layer.self_attn, normed, leading.offset if leading else 0)
    if leading is not None:
        keys, values = leading.update_and_fetch(keys, values)
    first = mx.array(batch.first - prefix.cases.leading)
    hidden = last_rows(stack, hidden, normed, keys, values, first, batch.targets.shape[1])
    return case_terms(stack, hidden, batch, prefix.cases)


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


def label_terms(
    adapted: Adapted, prefix: Prefix, batch: Batch, past: list[SharedPast | None]
) -> LossTerms:
    """Terms of a batch whose leading tokens are already in `past`, at label positions alone."""
    count = max(row.label_length for row in batch.rows)
    first_positions = replace(
        batch,
        targets=batch.targets[:, :count],
        scored=batch.scored[:, :count],
        is_label=batch.is_label[:, :count],
    )
    return batch_terms(adapted, prefix, first_positions, past)


@dataclass(frozen=True)
class Scores:
    """Scores of n cases, float32: cross-entropy sums in nats (n,), and log P(label | prompt) (n, 3)."""

    label_loss: np.ndarray
    other_loss: np.ndarray
    label_logp: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """(n, 3) softmax over the three labels, float64."""
        logp = self.label_logp.astype(np.float64)
        p = np.exp(logp - logp.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))


def score_cases(adapted: Adapted, prefix: Prefix, tokens_at_once: int = TOKENS_AT_ONCE) -> Scores:
    """Scores of every case, without dropout; the instruction is computed once."""
    cases = prefix.cases
    adapted.set_dropout(None)
    past = leading_past(adapted, prefix)
    # Evaluated, since batches side by side read them on streams of their own.
    mx.eval([block.arrays() for block in past if block])

    def terms_of(case_numbers: list[int]) -> tuple[mx.array, mx.array, mx.array]:
        terms = batch_terms(adapted, prefix, make_batch(cases, case_numbers), past)
        return terms.label_loss, terms.other_loss, terms.label_logp

    scores_by_case: dict[int, tuple[Any, Any, Any]] = {}
    for case_numbers, terms in side_by_side([sorted_batches(cases, tokens_at_once)], terms_of):
        columns = (np.array(values) for values in terms)
        scores_by_case |= zip(case_numbers, zip(*columns, strict=True), strict=True)

    ordered = [scores_by_case[number] for number in range(len(cases.encoded))]
    return Scores(*(np.stack(column) for column in zip(*ordered, strict=True)))


def validation_value(
    scores: Scores, cases: EncodedCases, objective: Objective
) -> tuple[float, list[float]]:
    """The recipe's own objective over a whole set, and its parts [label, other, cost]."""
    terms = LossTerms(
        mx.array(scores.label_loss), mx.array(scores.other_loss), mx.array(scores.label_logp)
    )
    count = len(cases.encoded)
    tokens = cases.scored_tokens(range(count))
    loss, parts = objective_sum(terms, cases.labels, objective, tokens, count)
    return float(np.array(loss)), np.array(parts).tolist()


def decision_figures(scores: Scores, cases: EncodedCases) -> dict[str, Any]:
    """Of the most probable labels of a set: the share of ED, the specificity (share of the other cases
    that are not answered ED; None without such cases), and the macro-F1.
    """
    answers = scores.label_logp.argmax(axis=1)
    answers_to_others = answers[cases.labels != 0]
    table = point_metrics.confusion_cells(np.asarray(cases.labels), answers).sum(axis=0)
    return {
        "ed_share": float((answers == 0).mean()),
        "specificity": float((answers_to_others != 0).mean()) if len(answers_to_others) else None,
        "macro_f1": float(point_metrics.macro_f1(table.reshape(3, 3))),
    }
