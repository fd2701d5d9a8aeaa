"""Forward passes of an adapted variant: training gradients, and deterministic scores over a set.

Only completion positions reach the final norm and head, the last block computes only those rows, and blocks below the
first LoRA block are read from the frozen prefix where it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from tasks.tuning.architecture import SharedPast, run_blocks, run_last_block
from tasks.tuning.batches import TOKENS_AT_ONCE, Batch, Cases, make_batch, sorted_batches
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.head import RowScores, score_rows
from tasks.tuning.lora import Adapted
from tasks.tuning.losses import Objective, Terms, case_terms, objective_sum, scored_tokens
from tasks.tuning.streams import side_by_side

LEADING = (
    1 << 31
) - 1  # the place of the leading tokens in a dropout key: no case of a batch has it


@dataclass(frozen=True)
class Scores:
    """Scores of a whole set, one row per case in the set's order, float32 numpy.

    `label_loss`, `other_loss` (n,): cross-entropy sums in nats; `label_logp` (n, 3): log P(label | prompt).
    """

    label_loss: np.ndarray
    other_loss: np.ndarray
    label_logp: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """(n, 3) softmax over the three labels, float64."""
        logp = self.label_logp.astype(np.float64)
        p = np.exp(logp - logp.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))


def update_gradients(
    adapted: Adapted, prefix: Prefix, cases: Cases, chosen: Sequence[int], objective: Objective,
    micro_batch: int, dropout_key: tuple[int, int] | None,
) -> tuple[mx.array, mx.array, Any]:  # fmt: skip
    """Loss, its parts (3,) and LoRA gradients of one effective batch, computed `micro_batch` cases at a time.

    The common leading tokens (the instruction) go through the trained blocks once for all cases of a part: attention
    is causal, so they are the same for each case, and their gradient is the sum over the cases.
    `dropout_key` = (seed, update); a case's mask depends on its position in the effective batch, and the leading
    tokens have one mask an update, so the micro-batch changes nothing but memory.
    """
    tokens, count = scored_tokens(cases, chosen), len(chosen)
    length = make_batch(cases, chosen).length
    model = adapted.stack.model
    total, parts, gradients = mx.array(0.0), mx.zeros(3), None

    def loss_of(model: nn.Module, batch: Batch, start: int) -> tuple[mx.array, mx.array]:
        past = leading_past(adapted, prefix, (*dropout_key, LEADING) if dropout_key else None)
        if dropout_key is not None:
            adapted.set_dropout(
                [(*dropout_key, start + i // cases.per_case) for i in range(len(batch.rows))]
            )
        terms = batch_terms(adapted, prefix, cases, batch, past)
        adapted.set_dropout(None)
        return objective_sum(terms, batch.labels, objective, tokens, count)

    value_and_gradient, own = nn.value_and_grad(model, loss_of), model.trainable_parameters()
    for start in range(0, count, micro_batch):
        batch = make_batch(cases, chosen[start : start + micro_batch], length)
        (loss, part), gradient = value_and_gradient(model, batch, start)
        gradients = gradient if gradients is None else tree_map(mx.add, gradients, gradient)
        total, parts = total + loss, parts + part
        mx.eval(total, parts, gradients)
    model.update(own)  # differentiating leaves its own copies in the model
    return total, parts, gradients


def step_peak(
    adapted: Adapted, prefix: Prefix, cases: Cases, objective: Objective, count: int = 1
) -> int:
    """Bytes that the gradients of `count` of the set's longest cases need at their peak, on top of what is held: each
    result is finished before the next is allocated, so that little depends on what else the machine does. What its threads
    free first still differs: about one step in eight of a tiny model takes up to a third more than the others."""
    longest = max(range(len(cases.encoded)), key=lambda c: len(cases.encoded[c].prompt))
    mx.clear_cache()
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    usual = mx.set_memory_limit(0)
    update_gradients(adapted, prefix, cases, [longest] * count, objective, count, (0, 0))
    mx.set_memory_limit(usual)
    return int(mx.get_peak_memory() - held)


def score_cases(
    adapted: Adapted, prefix: Prefix, cases: Cases, tokens_at_once: int = TOKENS_AT_ONCE
) -> Scores:
    """Deterministic scores of every case: dropout off, the instruction's tokens computed once for the whole set."""
    adapted.set_dropout(None)
    past = leading_past(adapted, prefix)
    mx.eval([p.arrays() for p in past if p])

    def terms_of(chosen: list[int]) -> tuple[mx.array, mx.array, mx.array]:
        terms = batch_terms(adapted, prefix, cases, make_batch(cases, chosen), past)
        return terms.label_loss, terms.other_loss, terms.label_logp

    out: dict[int, tuple[Any, Any, Any]] = {}
    for chosen, terms in side_by_side(sorted_batches(cases, tokens_at_once), terms_of):
        arrays = [np.array(a) for a in terms]
        out.update({case: tuple(a[i] for a in arrays) for i, case in enumerate(chosen)})
    ordered = [out[i] for i in range(len(cases.encoded))]
    return Scores(*(np.stack([row[k] for row in ordered]) for k in range(3)))


def leading_past(
    adapted: Adapted, prefix: Prefix, dropout_key: tuple[int, ...] | None = None
) -> list[SharedPast | None]:
    """Run the common leading tokens through the trained blocks and keep their keys and values."""
    stack, start = adapted.stack, prefix.boundary
    past: list[SharedPast | None] = [
        SharedPast() if i >= start else None for i in range(stack.depth)
    ]
    if prefix.cases.leading == 0:
        return [None] * stack.depth
    adapted.set_dropout([dropout_key] if dropout_key else None)
    run_blocks(
        stack, prefix.leading_hidden(), start, stack.depth, past
    )  # lazily: only keys and values are wanted
    adapted.set_dropout(None)
    return past


def batch_terms(
    adapted: Adapted, prefix: Prefix, cases: Cases, batch: Batch, past: list[SharedPast | None]
) -> Terms:
    """Terms of a batch whose leading tokens are already in `past`."""
    return case_terms(_scores_after(adapted, prefix, cases, batch, past), batch, cases)


def label_terms(
    adapted: Adapted, prefix: Prefix, cases: Cases, batch: Batch, past: list[SharedPast | None]
) -> Terms:
    """Terms of a batch whose leading tokens are already in `past`; only label positions are computed."""
    rows = max(row.label_length for row in batch.rows)
    short = _cut(batch, rows)
    return case_terms(_scores_after(adapted, prefix, cases, short, past), short, cases)


def _scores_after(
    adapted: Adapted, prefix: Prefix, cases: Cases, batch: Batch, past: list[SharedPast | None]
) -> RowScores:
    stack, skip = adapted.stack, cases.leading
    hidden = prefix.hidden(batch.rows, batch.length)
    hidden = run_blocks(stack, hidden, prefix.boundary, stack.depth - 1, past)
    targets = mx.array(batch.targets)
    hidden = run_last_block(stack, hidden, mx.array(batch.first - skip), targets.shape[1], past[-1])
    return score_rows(stack, hidden, targets, mx.array(cases.label_tokens))


def _cut(batch: Batch, rows: int) -> Batch:
    return replace(
        batch,
        targets=batch.targets[:, :rows],
        scored=batch.scored[:, :rows],
        is_label=batch.is_label[:, :rows],
    )


def validation_value(
    scores: Scores, cases: Cases, objective: Objective
) -> tuple[float, list[float]]:
    """The recipe's own objective over a whole set, and its parts [label, other, cost]."""
    terms = Terms(
        mx.array(scores.label_loss), mx.array(scores.other_loss), mx.array(scores.label_logp)
    )
    everything = range(len(cases.encoded))
    loss, parts = objective_sum(
        terms, cases.labels, objective, scored_tokens(cases, everything), len(cases.encoded)
    )
    return float(np.array(loss)), np.array(parts).tolist()
