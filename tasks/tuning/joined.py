"""The trained blocks over the instruction's tokens and a batch's own, joined in one row of tokens.

Products, norms and LoRA work token by token, so that one operation serves both; only attention
tells them apart. That halves the operations of a step, whose number decides the time of a small
step on a GPU. A CPU gains nothing, and computes the two one after the other (gradients.py), with the
same sums.

The row has no axis for sequences, and attention keeps the heads that share a key side by side: a
view of an array takes the host as long to start as an operation does. Shapes: P leading tokens, B
sequences of T own tokens, S = P + B T; G heads of keys, each with R of queries, of width d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tasks.tuning.cpu import HIDDEN
from tasks.tuning.model import Stack, computed_again, finish_block, last_rows

KeysAndValues = tuple[mx.array, mx.array]


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

    def join(self, leading: mx.array, own_hidden: mx.array) -> mx.array:
        """(1, P, D) and (B, T, D) to (S, D)."""
        width = own_hidden.shape[-1]
        return mx.concatenate([leading.reshape(-1, width), own_hidden.reshape(-1, width)])

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


def run_joined(
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
            _run_block,
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


def _run_block(
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
    leading = layout.leading
    total = layout.leading + layout.length
    query = np.arange(total)[:, None]
    key = np.arange(total)
    is_visible = (key <= query) & (key > query - (window or total))
    additive = np.where(is_visible, 0, HIDDEN).astype(np.float32)

    module = stack.layers[-1].self_attn
    by_head = np.repeat(additive, module.n_heads // module.n_kv_heads, axis=0)
    # Each token has as many rows as a key has queries; those of the leading tokens come first.
    first = len(by_head) * leading // total
    parts = (by_head[:first, :leading], by_head[first:])
    leading_mask, own_mask = (mx.array(part).astype(stack.dtype) for part in parts)

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
