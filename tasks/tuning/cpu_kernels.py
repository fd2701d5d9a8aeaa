"""The block's elementwise work in the operations that MLX's CPU backend does fast.

Measured on its x86 build, nanoseconds per element: exp 18, sigmoid 28, where 8, softmax 29, but tanh 6 and arithmetic
below 1. So the sigmoid and the exponential are written with tanh, masks are added instead of selected, and queries that
share a key-value head go through one larger product. Same functions to float32 rounding; the tests compare with stock.
"""

from __future__ import annotations

import mlx.core as mx

HIDDEN = -1e9  # added to a score that must not be seen


def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x), with sigmoid(x) = (1 + tanh(x / 2)) / 2."""
    half = 0.5 * x
    return half * mx.tanh(half) + half


def softmax(scores: mx.array) -> mx.array:
    """Softmax over the last axis, with exp(-y) = (1 - t) / (1 + t), t = tanh(y / 2), for y >= 0.

    The absolute error is one float32 rounding; exponentials below 1e-7 of the largest come out as 0.
    """
    t = mx.tanh(0.5 * (mx.stop_gradient(scores.max(axis=-1, keepdims=True)) - scores))
    exponentials = (1 - t) / (1 + t)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array) -> mx.array:
    """Grouped-query attention: queries (B, H, R, d), keys and values (B, H_kv, T, d), additive mask (..., R, T)."""
    batch, heads, rows, width = queries.shape
    groups = keys.shape[1]
    grouped = (queries * scale).reshape(batch, groups, (heads // groups) * rows, width)
    scores = (grouped @ keys.swapaxes(-1, -2)).reshape(batch, heads, rows, -1) + mask
    weights = softmax(scores).reshape(batch, groups, (heads // groups) * rows, -1)
    return (weights @ values).reshape(batch, heads, rows, width)


def additive(visible: mx.array) -> mx.array:
    """A boolean mask as an additive one."""
    return (1 - visible.astype(mx.float32)) * HIDDEN
