"""The training objective, written once for training and validation.

    l_i    = -log P(label_ti | prompt_i)                    each label scored to its full length
    l_i    = (1-e) l_i - e 1/3 sum_a log P(label_a | ...)   where the recipe smooths labels by e
    q_i    = softmax_a( log P(label_a | prompt_i) )         three labels
    K[t,a] = (C[t,a] - C[t,t]) / max(C[t,a] - C[t,t])       in [0, 1]; 0 where the maximum is 0
    v_c    = w_c / sum_k pi_k w_k                           pi = class shares as drawn from train; mean weight 1
    L      = 1/S sum_i [ m v_ti l_i + CE(other completion tokens) ] + lambda 1/B sum_i sum_a q_ia K[t_i,a]

m is the recipe's weight of the label against the end of the answer. S tokens and B cases are those
of the effective batch, never the sum of weights: a weighted mean would cancel the weights of a
one-class batch, and accumulation over micro-batches would not be exact. Smoothing spreads over the
three labels, which are all that a decision compares.

Of the head's logits (Gemma's has 262,144 columns) only a bounded block is held at once: beyond the
bound the log-sum-exp runs over blocks of columns, and the gradient computes them a second time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tasks.spec import LABELS, Recipe
from tasks.tuning.data import Batch, EncodedCases, drawn_counts
from tasks.tuning.model import Stack, exp_of_minus, final_norm, head_of, project


def score_rows(
    stack: Stack, hidden: mx.array, targets: mx.array, labels: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """Scores of hidden states (N, R, D) before the final norm, float32: log of the sum of
    exponentials (N, R), logit of each target (N, R), logits of the labels (N, L).

    `labels` (L,): token ids, read at the first row.
    """
    head = head_of(stack.model)
    rows = hidden.shape[0] * hidden.shape[1]
    if rows * _size(head) * 4 <= stack.logit_bytes:
        logits = project(stack, hidden)
        target_logits = mx.take_along_axis(logits, targets[:, :, None], axis=-1)[:, :, 0]
        return mx.logsumexp(logits, axis=-1), target_logits, logits[:, 0, labels]

    normed = final_norm(stack, hidden)
    columns = max(1, stack.logit_bytes // (4 * rows))
    normaliser = blocked_logsumexp(head, normed.reshape(rows, -1), columns, stack.cpu_kernels)
    # (N, R, D) with one row of the head each, and (N, D) with those of the labels.
    target_logits = (normed * _rows(head, targets)).sum(axis=-1)
    label_logits = normed[:, 0] @ _rows(head, labels).T

    return normaliser.reshape(targets.shape), target_logits, label_logits


def blocked_logsumexp(
    head: nn.Module, hidden: mx.array, block: int, fast_exp: bool = False
) -> mx.array:
    """log sum exp over all columns of a frozen head: (M, D) -> (M,), `block` columns at a time."""
    ends = [*range(0, _size(head), block), _size(head)]
    exp: Callable[[mx.array], mx.array] = exp_of_minus if fast_exp else lambda y: mx.exp(-y)

    @mx.custom_function
    def total(x: mx.array) -> mx.array:
        top = mx.full(x.shape[:1], -mx.inf)
        mass = mx.zeros(x.shape[:1])
        for start, stop in itertools.pairwise(ends):
            # The dependency makes MLX finish one block before it allocates the next.
            logits = _product(head, mx.depends(x, mass), slice(start, stop), transpose=True)
            # Online softmax: what was summed under the old maximum is scaled to the new one.
            new_top = mx.maximum(top, logits.max(axis=-1))
            mass = mass * mx.exp(top - new_top) + exp(new_top[:, None] - logits).sum(axis=-1)
            top = new_top

        return top + mx.log(mass)

    @total.vjp
    def _(x: mx.array, cotangent: mx.array, value: mx.array) -> mx.array:
        gradient = mx.zeros_like(x)
        for start, stop in itertools.pairwise(ends):
            logits = _product(head, mx.depends(x, gradient), slice(start, stop), transpose=True)
            share = exp(value[:, None] - logits) * cotangent[:, None]
            gradient = gradient + _product(head, share, slice(start, stop), transpose=False)
        return gradient

    result: mx.array = total(hidden)  # type: ignore[assignment]
    return result


def _size(head: nn.Module) -> int:
    return int(head.weight.shape[0])


def _product(head: nn.Module, x: mx.array, columns: slice, transpose: bool) -> mx.array:
    """Logits (M, D) -> (M, columns), float32 as `x` is; without `transpose` back to (M, D)."""
    if "scales" not in head:
        return x @ (head.weight[columns].T if transpose else head.weight[columns])
    return mx.quantized_matmul(
        x, head.weight[columns], transpose=transpose, **_packed(head, columns)
    )


def _rows(head: nn.Module, ids: mx.array) -> mx.array:
    """Rows of the head's matrix (..., D) for token ids, in float32."""
    if "scales" not in head:
        return head.weight[ids].astype(mx.float32)

    packed = _packed(head, ids)
    if head.mode == "affine":  # the other modes keep their scales in a byte
        packed |= {name: packed[name].astype(mx.float32) for name in ("scales", "biases")}
    return mx.dequantize(head.weight[ids], dtype=mx.float32, **packed)


def _packed(head: nn.Module, rows: slice | mx.array) -> dict[str, Any]:
    """Some rows of a quantised head as MLX's functions take them."""
    biases = head.get("biases")
    return {
        "scales": head.scales[rows],
        "biases": None if biases is None else biases[rows],
        "group_size": head.group_size,
        "bits": head.bits,
        "mode": head.mode,
    }


@dataclass(frozen=True)
class Objective:
    """Constants of a recipe's loss: label weights m v (3,), costs K (3, 3), lambda, smoothing e."""

    weights: np.ndarray
    costs: np.ndarray
    cost_weight: float
    smoothing: float = 0.0


@dataclass(frozen=True)
class LossTerms:
    """Per case, float32: cross-entropy sums over label and other tokens (B,), log-probabilities of
    labels (B, 3).
    """

    label_loss: mx.array
    other_loss: mx.array
    label_logp: mx.array


def make_objective(recipe: Recipe, train_labels: np.ndarray) -> Objective:
    """The loss constants of a recipe, given the labels (indices) of the training set."""
    counts = np.bincount(train_labels, minlength=len(LABELS))
    shares = drawn_counts(counts, recipe.sampling) / len(train_labels)
    weights = np.array([recipe.class_weights[c] if recipe.class_weights else 1.0 for c in LABELS])
    normalised = recipe.label_weight * weights / (shares @ weights)

    # Costs of each answer above those of the right one, in [0, 1].
    costs = np.zeros((len(LABELS), len(LABELS)))
    if recipe.cost_matrix:
        costs = np.array([[recipe.cost_matrix[t][a] for a in LABELS] for t in LABELS])
        costs = costs - np.diag(costs)[:, None]
        costs = costs / costs.max() if costs.max() > 0 else np.zeros_like(costs)

    return Objective(
        normalised.astype(np.float32),
        costs.astype(np.float32),
        recipe.cost_weight,
        recipe.label_smoothing,
    )


def case_terms(stack: Stack, hidden: mx.array, batch: Batch, cases: EncodedCases) -> LossTerms:
    """The loss terms of each case, from hidden states (N, R, D) at the scored positions of its rows,
    before the final norm.
    """
    targets = mx.array(batch.targets)
    normaliser, right, labels = score_rows(stack, hidden, targets, mx.array(cases.label_tokens))
    loss = (normaliser - right) * mx.array(batch.scored)
    label = (loss * mx.array(batch.is_label)).sum(axis=1)
    other = loss.sum(axis=1) - label
    if cases.per_case == 1:
        # One row scores all three labels, each a single token at the first scored position.
        return LossTerms(label, other, labels - normaliser[:, :1])

    # A row per label: the cross-entropy is that of the right one, `label_logp` has all three.
    truth = mx.array(batch.truth)
    by_case = (len(batch.cases), cases.per_case)
    return LossTerms(
        (label * truth).reshape(by_case).sum(axis=1),
        (other * truth).reshape(by_case).sum(axis=1),
        -label.reshape(by_case),
    )


def objective_sum(
    terms: LossTerms,
    labels: np.ndarray | mx.array,
    objective: Objective,
    tokens: int | mx.array,
    cases: int | mx.array,
) -> tuple[mx.array, mx.array]:
    """Loss of some cases as their share of an effective batch of `tokens` scored tokens and `cases`
    cases, and its parts [weighted label, other, cost] (3,); micro-batches add up exactly.
    """
    index = mx.array(labels)
    weights = mx.array(objective.weights)[index]
    label_loss = terms.label_loss
    if objective.smoothing > 0:
        spread = objective.smoothing * terms.label_logp.mean(axis=-1)
        label_loss = (1 - objective.smoothing) * label_loss - spread

    label = (label_loss * weights).sum() / tokens
    other = terms.other_loss.sum() / tokens
    cost = mx.array(0.0)

    if objective.costs.any() and objective.cost_weight > 0:
        q = mx.softmax(terms.label_logp, axis=-1)
        cost = objective.cost_weight * (q * mx.array(objective.costs)[index]).sum() / cases

    return label + other + cost, mx.stack([label, other, cost])
