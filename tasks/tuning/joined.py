"""The trained blocks over the instruction's tokens and a batch's own, joined in one row of tokens.

Products, norms and LoRA work token by token, so that one operation serves both; only attention
tells them apart. That halves the operations of a step, whose number decides the time of a small
step on a GPU. A CPU gains nothing, and computes the two one after the other (engine.py), with the
same sums.
Shapes: P leading tokens, B sequences of T own tokens, S = P + B T.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tasks.tuning.architecture import (
    SharedPast,
    Stack,
    dropout_states,
    finish_block,
    last_rows,
)
from tasks.tuning.cpu_kernels import HIDDEN


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a joined row are."""

    leading: int
    count: int
    length: int

    @property
    def positions(self) -> mx.array:
        """(S,) position of each token in its sequence."""
        own = np.arange(self.leading, self.leading + self.length, dtype=np.int32)
        return mx.array(
            np.concatenate([np.arange(self.leading), np.tile(own, self.count)]), mx.int32
        )

    def join(self, leading: mx.array, own: mx.array) -> mx.array:
        """(1, P, ...) and (B, T, ...) to (1, S, ...)."""
        return mx.concatenate([leading, own.reshape(1, -1, *own.shape[2:])], axis=1)

    def split(self, joined: mx.array) -> tuple[mx.array, mx.array]:
        """(1, S, ...) to (1, P, ...) and (B, T, ...)."""
        leading, own = mx.split(joined, [self.leading], axis=1)
        return leading, own.reshape(self.count, self.length, *own.shape[2:])


def run_joined(
    stack: Stack, joined: mx.array, layout: Layout, start: int, first_row: mx.array, rows: int
) -> mx.array:
    """Blocks `start` to the last over (1, S, D), the last one for scored rows only: (B, rows, D).

    `first_row` (B,): the first scored position of each sequence among its own tokens.
    """
    positions = layout.positions
    masks = {window: _masks(layout, window, joined.dtype) for window in set(stack.windows)}
    for i in range(start, stack.depth - 1):
        run = _checkpointed if stack.checkpointing else _run_block
        joined = run(stack, i, joined, layout, positions, masks[stack.windows[i]])

    layer = stack.layers[-1]
    normed = layer.input_layernorm(joined)
    _, keys, values = _all_keys_and_values(layer.self_attn, normed, layout, positions)
    _, own = layout.split(joined)
    _, own_normed = layout.split(normed)
    return last_rows(stack, own, own_normed, keys, values, first_row, rows)


def _run_block(
    stack: Stack,
    i: int,
    joined: mx.array,
    layout: Layout,
    positions: mx.array,
    masks: tuple[mx.array, mx.array],
) -> mx.array:
    layer = stack.layers[i]
    module = layer.self_attn
    normed = layer.input_layernorm(joined)
    queries = _turned(module, module.q_proj(normed), module.n_heads, positions, "q_norm")
    queries = queries * module.scale
    past, keys, values = _all_keys_and_values(module, normed, layout, positions)

    leading_queries, own_queries = (part.transpose(0, 2, 1, 3) for part in layout.split(queries))
    past_keys, past_values = past.arrays()
    leading = _attention(leading_queries, past_keys, past_values, masks[0])
    own = _attention(own_queries, keys, values, masks[1])
    return finish_block(stack, layer, joined, module.o_proj(layout.join(leading, own)))


def _checkpointed(
    stack: Stack,
    i: int,
    joined: mx.array,
    layout: Layout,
    positions: mx.array,
    masks: tuple[mx.array, mx.array],
) -> mx.array:
    """The block, computed a second time in the backward pass, with the same dropout masks."""
    layer = stack.layers[i]
    states = dropout_states(layer)

    def run(weights: dict[str, object], joined: mx.array) -> mx.array:
        layer.update(weights)
        for module, state in states:
            module.set_keys(*state)
        return _run_block(stack, i, joined, layout, positions, masks)

    output: mx.array = mx.checkpoint(run)(layer.trainable_parameters(), joined)
    return output


def _masks(layout: Layout, window: int | None, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Additive masks of the leading tokens (P, P) and of the own ones (T, P + T).

    Added, since the derivative of a selection takes two operations more in each block.
    """
    leading, total = layout.leading, layout.leading + layout.length
    query = np.arange(total)[:, None]
    key = np.arange(total)
    seen = (key <= query) & (key > query - (window or total))
    mask = mx.array(np.where(seen, 0, HIDDEN).astype(np.float32)).astype(dtype)
    return mask[:leading, :leading], mask[leading:]


def _attention(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array) -> mx.array:
    """Grouped-query attention of scaled queries (B, H, R, d) over (B, H_kv, T, d): (B, R, H d).

    The fused function of MLX would take itself apart to be differentiated, with more operations.
    """
    batch, heads, rows, width = queries.shape
    groups = keys.shape[1]
    grouped = queries.reshape(batch, groups, -1, width)
    scores = (grouped @ keys.swapaxes(-1, -2)).reshape(batch, heads, rows, -1) + mask
    weights = mx.softmax(scores, axis=-1, precise=True).reshape(batch, groups, -1, keys.shape[2])
    output = (weights @ values).reshape(batch, heads, rows, width)
    return output.transpose(0, 2, 1, 3).reshape(batch, rows, -1)


def _all_keys_and_values(
    module: nn.Module, normed: mx.array, layout: Layout, positions: mx.array
) -> tuple[SharedPast, mx.array, mx.array]:
    """Keys and values of the leading tokens, and those that each sequence sees: (B, heads, P + T,
    d).
    """
    keys = _turned(module, module.k_proj(normed), module.n_kv_heads, positions, "k_norm")
    values = module.v_proj(normed).reshape(*normed.shape[:2], module.n_kv_heads, -1)
    leading_keys, own_keys = (part.transpose(0, 2, 1, 3) for part in layout.split(keys))
    leading_values, own_values = (part.transpose(0, 2, 1, 3) for part in layout.split(values))
    past = SharedPast(leading_keys, leading_values)
    return past, *past.update_and_fetch(own_keys, own_values)


def _turned(
    module: nn.Module, projected: mx.array, heads: int, positions: mx.array, norm: str
) -> mx.array:
    """Projected tokens (1, S, heads d), turned by their positions: (1, S, heads, d)."""
    tokens = projected.shape[1]
    by_token = projected.reshape(tokens, heads, 1, -1)
    if norm in module:
        by_token = module[norm](by_token)
    turned: mx.array = module.rope(by_token, offset=positions)
    return turned.reshape(1, tokens, heads, -1)
