"""Attention in a block: its queries, keys and values, its mask, and the keys and values of the leading
tokens that a batch shares.

Shapes: B sequences, T positions, R scored rows per sequence, D hidden size; H heads, H_kv of keys,
of width d.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import scaled_dot_product_attention

from tasks.tuning.architecture import Stack
from tasks.tuning.cpu_kernels import additive, attention

# An array, a word that the fused kernels know, or None for one position.
Mask = mx.array | str | None


class SharedPast:
    """Keys and values of the leading tokens, as a cache that every sequence of a batch shares.

    The first call records them (batch of one); later calls put them in front of each sequence's
    own.
    """

    def __init__(self, keys: mx.array | None = None, values: mx.array | None = None) -> None:
        self.keys = keys
        self.values = values

    @property
    def offset(self) -> int:
        """Number of leading tokens, 0 before the first call."""
        return 0 if self.keys is None else self.keys.shape[2]

    def arrays(self) -> list[mx.array]:
        """Its keys and values, once they are recorded."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """(B, heads, T, d) of new tokens to (B, heads, P + T, d) of all.

        The first call sets the P leading ones.
        """
        if self.keys is None or self.values is None:
            self.keys = keys
            self.values = values
            return keys, values

        # Not kept: the next batch starts from the leading tokens again.
        shape = (keys.shape[0], *self.keys.shape[1:])
        return (
            mx.concatenate([mx.broadcast_to(self.keys, shape), keys], axis=2),
            mx.concatenate([mx.broadcast_to(self.values, shape), values], axis=2),
        )


def attention_mask(stack: Stack, length: int, window: int | None, offset: int) -> Mask:
    """The mask of block inputs of `length` positions after `offset` earlier ones."""
    if offset == 0 and not stack.cpu_kernels and not (window and length > window):
        # mlx-lm names a plain causal mask by a word, which the fused kernels know.
        return "causal" if length > 1 else None

    visible_keys = visible(mx.arange(offset, offset + length)[:, None], offset + length, window)
    return additive(visible_keys) if stack.cpu_kernels else visible_keys


def visible(query: mx.array, keys: int, window: int | None) -> mx.array:
    """Boolean mask (..., queries, keys): causal, and within the window if there is one."""
    key = mx.arange(keys)
    mask = key <= query
    return mask & (key > query - window) if window else mask


def attended(
    stack: Stack,
    module: nn.Module,
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: Mask,
) -> mx.array:
    """(B, H, R, d) queries over keys and values (B, H_kv, T, d): (B, R, H d)."""
    if stack.cpu_kernels:
        assert isinstance(mask, mx.array)
        output = attention(queries, keys, values, module.scale, mask)
    else:
        output = scaled_dot_product_attention(
            queries, keys, values, cache=None, scale=module.scale, mask=mask
        )

    batch, _, rows, _ = queries.shape
    return output.transpose(0, 2, 1, 3).reshape(batch, rows, -1)


def queries_of(module: nn.Module, hidden: mx.array, offset: int | mx.array) -> mx.array:
    """(B, R, D) to queries (B, H, R, d)."""
    batch, rows, _ = hidden.shape
    queries = module.q_proj(hidden).reshape(batch, rows, module.n_heads, -1)
    if "q_norm" in module:
        queries = module.q_norm(queries)
    return module.rope(queries.transpose(0, 2, 1, 3), offset=offset)


def keys_and_values(module: nn.Module, normed: mx.array, offset: int) -> tuple[mx.array, mx.array]:
    """(B, T, D) to keys and values (B, heads, T, d), without the past."""
    batch, length, _ = normed.shape
    keys = module.k_proj(normed).reshape(batch, length, module.n_kv_heads, -1)
    values = module.v_proj(normed).reshape(batch, length, module.n_kv_heads, -1)
    if "k_norm" in module:
        keys = module.k_norm(keys)
    keys = module.rope(keys.transpose(0, 2, 1, 3), offset=offset)
    return keys, values.transpose(0, 2, 1, 3)
