"""Forward passes of an adapted variant: the leading tokens once, then the loss terms of a batch.

Only completion positions reach the final norm and the head, the last block computes only those
rows, and the blocks below the first LoRA block are read from the frozen prefix if it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx

from tasks.tuning.attention import SharedPast
from tasks.tuning.batches import Batch
from tasks.tuning.blocks import record_past, run_blocks, run_last_block
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.head import RowScores, score_rows
from tasks.tuning.lora import Adapted
from tasks.tuning.losses import LossTerms, case_terms


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
    own_rows = inputs.own_rows if inputs else prefix.stored_rows(batch.rows, batch.length)
    return case_terms(_score_batch(adapted, prefix, batch, past, own_rows), batch, prefix.cases)


def label_terms(
    adapted: Adapted, prefix: Prefix, batch: Batch, past: list[SharedPast | None]
) -> LossTerms:
    """Terms of a batch whose leading tokens are already in `past`.

    Only label positions are computed.
    """
    positions = max(row.label_length for row in batch.rows)
    return batch_terms(adapted, prefix, _first_positions(batch, positions), past)


def _score_batch(
    adapted: Adapted,
    prefix: Prefix,
    batch: Batch,
    past: list[SharedPast | None],
    own_rows: mx.array,
) -> RowScores:
    stack = adapted.stack
    cases = prefix.cases
    hidden = prefix.enter(own_rows)
    hidden = run_blocks(stack, hidden, prefix.boundary, stack.depth - 1, past)

    targets = mx.array(batch.targets)
    first = mx.array(batch.first - cases.leading)
    hidden = run_last_block(stack, hidden, first, targets.shape[1], past[-1])
    return score_rows(stack, hidden, targets, mx.array(cases.label_tokens))


def _first_positions(batch: Batch, count: int) -> Batch:
    """The batch with only its first `count` scored positions."""
    return replace(
        batch,
        targets=batch.targets[:, :count],
        scored=batch.scored[:, :count],
        is_label=batch.is_label[:, :count],
    )
