"""Forward passes of an adapted variant: the leading tokens once, then the loss terms of a batch, or
the scores of a whole set and what a validation reads in them.

Only completion positions reach the final norm and the head, the last block computes only those
rows, and the blocks below the first LoRA block are read from the frozen prefix if it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.judging import point_metrics
from tasks.tuning.activations import Prefix
from tasks.tuning.cpu import side_by_side
from tasks.tuning.data import TOKENS_AT_ONCE, Batch, EncodedCases, make_batch, sorted_batches
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import (
    LossTerms,
    Objective,
    case_terms,
    objective_sum,
    score_rows,
    scored_tokens,
)
from tasks.tuning.model import SharedPast, record_past, run_blocks, run_last_block


@dataclass(frozen=True)
class PartInputs:
    """What the prefix stores of a part of a batch, see `Prefix.stored_rows`."""

    leading: mx.array
    own_rows: mx.array

    @classmethod
    def read(cls, prefix: Prefix, part: Batch) -> PartInputs:
        """The stored rows of a part, and the stored leading tokens."""
        return cls(prefix.stored_leading(), prefix.stored_rows(part.rows, part.length))


def leading_past(
    adapted: Adapted, prefix: Prefix, dropout_key: tuple[int, ...] | None = None
) -> list[SharedPast | None]:
    """Keys and values of the common leading tokens in each trained block.

    None for a block that needs none.

    MLX computes them lazily, and nothing else of the last block.
    """
    stack = adapted.stack
    start = prefix.boundary
    if prefix.cases.leading == 0:
        return [None] * stack.depth

    last = stack.depth - 1
    recorded = SharedPast()
    # The last block gives keys and values alone, since no leading token is scored.
    past = [SharedPast() if i >= start else None for i in range(last)] + [recorded]
    adapted.set_dropout([dropout_key] if dropout_key else None)
    hidden = run_blocks(stack, prefix.leading_hidden(), start, last, past)
    record_past(stack, last, hidden, recorded)
    # Masks were taken while the graph was built, so dropout may go off before it is computed.
    adapted.set_dropout(None)

    return past


def batch_terms(
    adapted: Adapted,
    prefix: Prefix,
    batch: Batch,
    past: list[SharedPast | None],
    inputs: PartInputs | None = None,
) -> LossTerms:
    """Loss terms of a batch whose leading tokens are already in `past`.

    `inputs`: what the prefix stores of it, if the caller has read it.
    """
    stack = adapted.stack
    cases = prefix.cases
    own_rows = inputs.own_rows if inputs else prefix.stored_rows(batch.rows, batch.length)
    hidden = prefix.enter(own_rows)
    hidden = run_blocks(stack, hidden, prefix.boundary, stack.depth - 1, past)

    targets = mx.array(batch.targets)
    first = mx.array(batch.first - cases.leading)
    hidden = run_last_block(stack, hidden, first, targets.shape[1], past[-1])
    scores = score_rows(stack, hidden, targets, mx.array(cases.label_tokens))
    return case_terms(scores, batch, cases)


def label_terms(
    adapted: Adapted, prefix: Prefix, batch: Batch, past: list[SharedPast | None]
) -> LossTerms:
    """Terms of a batch whose leading tokens are already in `past`.

    Only label positions are computed.
    """
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
    """Scores of a whole set, one row per case in the set's order, float32 numpy.

    `label_loss`, `other_loss` (n,): cross-entropy sums in nats; `label_logp` (n, 3): log P(label |
    prompt).
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


def score_cases(adapted: Adapted, prefix: Prefix, tokens_at_once: int = TOKENS_AT_ONCE) -> Scores:
    """Deterministic scores of every case: dropout is off, and the instruction is computed once for
    the whole set.
    """
    cases = prefix.cases
    adapted.set_dropout(None)
    past = leading_past(adapted, prefix)
    # Evaluated, since batches side by side read them on streams of their own.
    mx.eval([block.arrays() for block in past if block])

    def terms_of(case_numbers: list[int]) -> tuple[mx.array, mx.array, mx.array]:
        terms = batch_terms(adapted, prefix, make_batch(cases, case_numbers), past)
        return terms.label_loss, terms.other_loss, terms.label_logp

    scores_by_case: dict[int, tuple[Any, Any, Any]] = {}
    for case_numbers, terms in side_by_side(sorted_batches(cases, tokens_at_once), terms_of):
        label_loss, other_loss, label_logp = (np.array(values) for values in terms)
        for i, number in enumerate(case_numbers):
            scores_by_case[number] = (label_loss[i], other_loss[i], label_logp[i])

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
    tokens = scored_tokens(cases, range(count))
    loss, parts = objective_sum(terms, cases.labels, objective, tokens, count)
    return float(np.array(loss)), np.array(parts).tolist()


def macro_f1_of(scores: Scores, cases: EncodedCases) -> float:
    """Macro-F1 of the most probable labels, over the three labels."""
    answers = scores.label_logp.argmax(axis=1)
    table = (
        point_metrics.confusion_cells(np.asarray(cases.labels), answers).sum(axis=0).reshape(3, 3)
    )
    return float(point_metrics.macro_f1(table))


def ed_share_and_specificity(scores: Scores, cases: EncodedCases) -> tuple[float, float | None]:
    """Share of cases answered ED by argmax, and the share of non-ED cases not answered ED
    (specificity).
    """
    answers = scores.label_logp.argmax(axis=1)
    answers_to_others = answers[cases.labels != 0]
    ed_share = float((answers == 0).mean())
    return ed_share, float((answers_to_others != 0).mean()) if len(answers_to_others) else None
