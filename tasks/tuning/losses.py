"""The training objective, written once for training and validation.

    l_i    = -log P(label_ti | prompt_i)                    each label scored to its full length
    l_i    = (1-e) l_i - e 1/3 sum_a log P(label_a | ...)   where the recipe smooths labels by e
    q_i    = softmax_a( log P(label_a | prompt_i) )         three labels
    K[t,a] = (C[t,a] - C[t,t]) / max(C[t,a] - C[t,t])       in [0, 1]; 0 where the maximum is 0
    v_c    = w_c / sum_k pi_k w_k                           pi = class shares as drawn from train; mean weight 1
    L      = 1/S sum_i [ m v_ti l_i + CE(other completion tokens) ] + lambda 1/B sum_i sum_a q_ia K[t_i,a]

m is the recipe's weight of the label against the end of the answer. S tokens and B cases are those
of the effective batch, never the sum of weights: a weighted mean would cancel the weights of a
one-class batch, and accumulation over micro-batches would not be exact.

Smoothing spreads over the three labels and not over the vocabulary: a decision compares the labels
alone, and their probabilities are at hand where the head runs in blocks, and where a label has
several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from tasks.spec import LABELS, Recipe
from tasks.tuning.batches import Batch, EncodedCases
from tasks.tuning.head import RowScores
from tasks.tuning.sampling import drawn_counts


@dataclass(frozen=True)
class Objective:
    """Constants of a recipe's loss: label weights m v (3,), normalised costs K (3, 3), lambda, and
    the share e that smoothing spreads.
    """

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

    return Objective(
        normalised.astype(np.float32),
        _costs(recipe).astype(np.float32),
        recipe.cost_weight,
        recipe.label_smoothing,
    )


def _costs(recipe: Recipe) -> np.ndarray:
    """K (3, 3): costs of each answer above those of the right one, in [0, 1]."""
    if not recipe.cost_matrix:
        return np.zeros((len(LABELS), len(LABELS)))

    costs = np.array([[recipe.cost_matrix[t][a] for a in LABELS] for t in LABELS])
    costs = costs - np.diag(costs)[:, None]
    return costs / costs.max() if costs.max() > 0 else np.zeros_like(costs)


def case_terms(scores: RowScores, batch: Batch, cases: EncodedCases) -> LossTerms:
    """The loss terms of each case, from the scores of its rows at the scored positions."""
    loss = (scores.normaliser - scores.targets) * mx.array(batch.scored)
    label = (loss * mx.array(batch.is_label)).sum(axis=1)
    other = loss.sum(axis=1) - label
    if cases.per_case == 1:
        # One row scores all three labels, each a single token at the first scored position.
        return LossTerms(label, other, scores.labels - scores.normaliser[:, :1])

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
    cases.

    Returns (loss, parts) with parts = [weighted label, other, cost] (3,); micro-batches add up
    exactly.
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


def scored_tokens(cases: EncodedCases, case_numbers: Sequence[int]) -> int:
    """S: completion tokens of the true labels of some cases."""
    return sum(len(row.targets) for row in cases.rows_of(case_numbers) if row.is_truth)
