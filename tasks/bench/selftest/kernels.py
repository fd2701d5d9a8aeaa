"""Checks of single kernels at real sizes, with their derivatives, in this backend's data type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.base import scaled_dot_product_attention

from tasks.bench.selftest.check import SelfTestCheck, distance
from tasks.bench.selftest.models import GROUP
from tasks.runtime.backend import backend
from tasks.tuning.cpu import additive
from tasks.tuning.cpu import attention as cpu_attention
from tasks.tuning.model import visible

# Query heads, key heads and size of a head of SmolLM2-135M and of Gemma.
HEADS = ((9, 3, 64), (4, 1, 256))
TOKENS = 96
WINDOW = 32
# Inputs and outputs: SmolLM2's blocks and head, and Gemma's blocks.
WIDTHS = ((576, 1536), (1536, 576), (576, 49_152), (1024, 640))
# Rows of a product: as many as a step has tokens, but few where the product is slow.
ROWS = 4
ROWS_ON_A_GPU = 512

Function = Callable[..., mx.array]


def attention_checks() -> Iterator[SelfTestCheck]:
    """Attention at both sizes of a head, with and without a window."""
    for heads in HEADS:
        for mask in ("causal", "window"):
            yield SelfTestCheck(
                f"attention, {mask}, head size {heads[2]}: fused against unfused",
                lambda heads=heads, mask=mask: attention_error(heads, mask),  # type: ignore[misc]
                backend().rounding,
            )


def product_checks() -> Iterator[SelfTestCheck]:
    """Quantised products at real widths."""
    for inputs, columns in WIDTHS:
        for bits in (4, 8):
            yield SelfTestCheck(
                f"product {inputs} x {columns}, {bits}bit: packed against dequantised",
                lambda i=inputs, c=columns, b=bits: product_error(i, c, b),  # type: ignore[misc]
                backend().rounding,
            )


def attention_error(heads: tuple[int, int, int], mask: str) -> float:
    """Attention as a training here computes it, against its definition in float32."""
    queries, keys, size = heads
    shapes = [(2, count, TOKENS, size) for count in (queries, keys, keys)]
    arrays = _draw(shapes)
    cotangent = mx.random.normal(shapes[0], key=mx.random.key(9))
    visible_keys = visible(mx.arange(TOKENS)[:, None], TOKENS, WINDOW if mask == "window" else None)
    scale = size**-0.5

    def fused(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        if backend().cpu_kernels:
            return cpu_attention(q, k, v, scale, additive(visible_keys))
        argument: Any = "causal" if mask == "causal" else visible_keys
        return scaled_dot_product_attention(q, k, v, cache=None, scale=scale, mask=argument)

    def unfused(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        k, v = (mx.repeat(x, queries // keys, axis=1) for x in (k, v))
        scores = mx.where(visible_keys, scale * (q @ k.swapaxes(-1, -2)), -mx.inf)
        return mx.softmax(scores, axis=-1) @ v

    return _distance(fused, unfused, arrays, cotangent)


def product_error(inputs: int, columns: int, bits: int) -> float:
    """A quantised product and its derivative in the inputs, against unpacked weights in float32."""
    rows = ROWS_ON_A_GPU if backend().on_gpu else ROWS
    (weight,) = _draw([(columns, inputs)])
    packed: Sequence[mx.array] = mx.quantize(weight, group_size=GROUP, bits=bits)
    values, scales, biases = packed
    exact = mx.dequantize(
        values, scales.astype(mx.float32), biases.astype(mx.float32), group_size=GROUP, bits=bits
    )
    arrays = _draw([(rows, inputs)])
    cotangent = mx.random.normal((rows, columns), key=mx.random.key(9))

    def product(x: mx.array) -> mx.array:
        return mx.quantized_matmul(
            x, values, scales, biases, transpose=True, group_size=GROUP, bits=bits
        )

    return _distance(product, lambda x: x @ exact.T, arrays, cotangent)


def _draw(shapes: Sequence[tuple[int, ...]]) -> list[mx.array]:
    """Random arrays in the data type of this backend."""
    dtype = mx.float32 if backend().compute_dtype == "float32" else mx.bfloat16
    draws = [mx.random.normal(shape, key=mx.random.key(i)) for i, shape in enumerate(shapes)]
    return [draw.astype(dtype) for draw in draws]


def _distance(
    function: Function, reference: Function, arrays: list[mx.array], cotangent: mx.array
) -> float:
    """The largest distance of a function's value and derivatives to those of its reference, which
    gets the same inputs in float32.
    """
    values = _with_derivatives(function, arrays, cotangent)
    exact = _with_derivatives(reference, [x.astype(mx.float32) for x in arrays], cotangent)
    return max(distance(a, b) for a, b in zip(values, exact, strict=True))


def _with_derivatives(
    function: Function, arrays: list[mx.array], cotangent: mx.array
) -> list[mx.array]:
    dtype = arrays[0].dtype
    values, derivatives = mx.vjp(function, arrays, [cotangent.astype(dtype)])
    return [*values, *derivatives]
