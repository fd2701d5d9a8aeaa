"""Forward passes of an adapted variant: the instruction's tokens and a batch's own, one after the
other or joined in one row; the scores of a whole set, and what a validation reads in them.

Only completion positions reach the final norm and the head, the last block computes only those
rows, and the blocks below the first LoRA block are read from the frozen prefix if it is stored.

Joined: products, norms and LoRA work token by token, so that one operation serves the instruction
and the cases; only attention tells them apart. That halves the operations of a step, whose number
decides the time of a small step on a GPU. A CPU gains nothing, and computes the two one after the
other, with the same sums. The row has no axis for sequences, and attention keeps the heads that
share a key side by side: a view of an array takes the host as long to start as an operation does.
Shapes: P leading tokens, B sequences of T own tokens, S = P + B T; G heads of keys, each with R of
queries, of width d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tasks.judging import point_metrics
from tasks.tuning.activations import Prefix
from tasks.tuning.cpu import HIDDEN, side_by_side
from tasks.tuning.data import TOKENS_AT_ONCE, Batch, EncodedCases, make_batch, sorted_batches
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import LossTerms, Objective, case_terms, objective_sum, scored_tokens
from tasks.tuning.model import (
    SharedPast,
    Stack,
    computed_again,
    finish_block,
    keys_and_values,
    last_rows,
    run_blocks,
)


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
    adapted: Adapted,
    prefix: Prefix,
    batch: Batch,
    past: list[SharedPast | None],
    own_rows: mx.array | None = None,
) -> LossTerms:
    """Loss terms of a batch whose leading tokens are already in `past`.

    `own_rows`: what the prefix stores of its rows, if the caller has read it.
    """
    stack = adapted.stack
    if own_rows is None:
        own_rows = prefix.stored_rows(batch.rows, batch.length)
    hidden = prefix.enter(own_rows)
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


def joined_terms(
    adapted: Adapted, prefix: Prefix, batch: Batch, leading: mx.array, own_rows: mx.array
) -> LossTerms:
    """Loss terms of a batch, its leading tokens and its own in one row.

    `leading`, `own_rows`: what the prefix stores of them.
    """
    stack = adapted.stack
    layout = Layout(prefix.cases.leading, len(batch.rows), batch.length - prefix.cases.leading)
    width = stack.hidden_size
    parts = [prefix.enter(leading).reshape(-1, width), prefix.enter(own_rows).reshape(-1, width)]
    first = mx.array(batch.first) - prefix.cases.leading
    rows = batch.targets.shape[1]
    hidden = _run_joined(stack, mx.concatenate(parts), layout, prefix.boundary, first, rows)
    return case_terms(stack, hidden, batch, prefix.cases)


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a joined row (S, ...) are."""

    leading: int
    count: int
    length: int

    @property
    def positions(self) -> mx.array:
        """(S,) position of each token in its sequence."""
        own_positions = np.arange(self.leading, self.leading + self.length, dtype=np.int32)
        return mx.array(
            np.concatenate([np.arange(self.leading), np.tile(own_positions, self.count)]), mx.int32
        )

    def own_part(self, joined_rows: mx.array) -> mx.array:
        """(S, D) to (B, T, D)."""
        return joined_rows[self.leading :].reshape(self.count, self.length, -1)

    def visible_states(self, joined_states: mx.array) -> tuple[mx.array, mx.array]:
        """(G, 1, S, d) to (G, 1, P, d) of the leading tokens and (G, B, P + T, d) of each sequence."""
        groups, _, _, width = joined_states.shape
        leading, own_states = mx.split(joined_states, [self.leading], axis=2)
        shared = mx.broadcast_to(leading, (groups, self.count, self.leading, width))
        return leading, mx.concatenate(
            [shared, own_states.reshape(groups, self.count, -1, width)], axis=2
        )


def _run_joined(
    stack: Stack,
    joined_hidden: mx.array,
    layout: Layout,
    start: int,
    first_row: mx.array,
    rows: int,
) -> mx.array:
    """Blocks `start` to the last over (S, D), the last one for scored rows only: (B, rows, D).

    `first_row` (B,): the first scored position of each sequence among its own tokens.
    """
    positions = layout.positions
    masks = {window: _masks(stack, layout, window) for window in set(stack.windows)}
    for i in range(start, stack.depth - 1):
        run: Callable[..., mx.array] = partial(
            _run_joined_block,
            stack,
            i,
            layout=layout,
            positions=positions,
            masks=masks[stack.windows[i]],
        )
        if stack.checkpointing:
            run = computed_again(stack.layers[i], run)
        joined_hidden = run(joined_hidden)

    layer = stack.layers[-1]
    normed = layer.input_layernorm(joined_hidden)
    _, visible_states = _keys_and_values(layer.self_attn, normed, layout, positions)
    keys, values = (by_group.swapaxes(0, 1) for by_group in visible_states)
    own_hidden = layout.own_part(joined_hidden)
    own_normed = layout.own_part(normed)

    return last_rows(stack, own_hidden, own_normed, keys, values, first_row, rows)


def _run_joined_block(
    stack: Stack,
    i: int,
    joined_hidden: mx.array,
    layout: Layout,
    positions: mx.array,
    masks: tuple[mx.array, mx.array],
) -> mx.array:
    layer = stack.layers[i]
    module = layer.self_attn
    normed = layer.input_layernorm(joined_hidden)
    queries = _turned(module.q_proj(normed), positions, module, "q_norm", module.scale)
    past, visible_states = _keys_and_values(module, normed, layout, positions)

    by_head = queries.reshape(len(queries), module.n_kv_heads, -1, queries.shape[-1])
    leading_queries, own_queries = mx.split(by_head.transpose(1, 0, 2, 3), [layout.leading], axis=1)
    leading = _attention(leading_queries, *past, masks[0])
    own_attended = _attention(own_queries, *visible_states, masks[1])
    attended = mx.concatenate([leading, own_attended], axis=1).transpose(1, 0, 2, 3)
    output = module.o_proj(attended.reshape(len(joined_hidden), -1))

    return finish_block(stack, layer, joined_hidden, output)


def _masks(stack: Stack, layout: Layout, window: int | None) -> tuple[mx.array, mx.array]:
    """Additive masks of the leading tokens (P R, P) and of the own ones (T R, P + T).

    Added, since the derivative of a selection takes two operations more in each block.
    """
    total = layout.leading + layout.length
    query = np.arange(total)[:, None]
    key = np.arange(total)
    is_visible = (key <= query) & (key > query - (window or total))
    additive = np.where(is_visible, 0, HIDDEN).astype(np.float32)

    # Each token has as many rows as a key has queries; those of the leading tokens come first.
    module = stack.layers[-1].self_attn
    queries_per_key = module.n_heads // module.n_kv_heads
    by_head = np.repeat(additive, queries_per_key, axis=0)
    first = queries_per_key * layout.leading
    leading_mask, own_mask = (
        mx.array(part).astype(stack.dtype)
        for part in (by_head[:first, : layout.leading], by_head[first:])
    )
    return leading_mask, own_mask


def _attention(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array) -> mx.array:
    """Attention of scaled queries (G, tokens, R, d) over (G, sequences, keys, d): as the queries.

    The fused function of MLX would take itself apart to be differentiated, with more operations.
    """
    groups, sequences, _, width = keys.shape
    by_sequence = queries.reshape(groups, sequences, -1, width)
    # `precise`: sums are in float32 where the blocks compute in bfloat16.
    weights = mx.softmax(by_sequence @ keys.swapaxes(-1, -2) + mask, axis=-1, precise=True)
    return (weights @ values).reshape(queries.shape)


KeysAndValues = tuple[mx.array, mx.array]


def _keys_and_values(
    module: nn.Module, normed: mx.array, layout: Layout, positions: mx.array
) -> tuple[KeysAndValues, KeysAndValues]:
    """Keys and values of the leading tokens (G, 1, P, d), and those that each sequence sees (G, B,
    P + T, d).
    """
    keys = _turned(module.k_proj(normed), positions, module, "k_norm")
    values = module.v_proj(normed).reshape(keys.shape)
    leading_keys, every_key = layout.visible_states(keys.transpose(1, 2, 0, 3))
    leading_values, every_value = layout.visible_states(values.transpose(1, 2, 0, 3))
    return (leading_keys, leading_values), (every_key, every_value)


def _turned(
    projected: mx.array, positions: mx.array, module: nn.Module, norm: str, scale: float = 1
) -> mx.array:
    """Projected tokens (S, heads d), scaled and turned by their positions: (S, heads, 1, d)."""
    heads = module.n_kv_heads if norm == "k_norm" else module.n_heads
    # rope takes one offset per sequence, so each token is a sequence of length 1 here.
    by_token = projected.reshape(len(positions), heads, 1, -1)
    if norm in module:
        by_token = module[norm](by_token)
    turned: mx.array = module.rope(by_token if scale == 1 else by_token * scale, offset=positions)
    return turned


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
    tokens = scored_tokens(cases, range(count))
    loss, parts = objective_sum(terms, cases.labels, objective, tokens, count)
    return float(np.array(loss)), np.array(parts).tolist()


def decision_figures(scores: Scores, cases: EncodedCases) -> dict[str, Any]:
    """What the most probable labels of a set say: the share of ED among them, the specificity (share
    of the other cases that are not answered ED; None without such cases), and the macro-F1.
    """
    answers = scores.label_logp.argmax(axis=1)
    answers_to_others = answers[cases.labels != 0]
    table = point_metrics.confusion_cells(np.asarray(cases.labels), answers).sum(axis=0)
    return {
        "ed_share": float((answers == 0).mean()),
        "specificity": float((answers_to_others != 0).mean()) if len(answers_to_others) else None,
        "macro_f1": float(point_metrics.macro_f1(table.reshape(3, 3))),
    }
