"""Checks of single kernels at real sizes, with their derivatives, in this backend's data type; and of
memory: what the watchdog counts, and what can be wired.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
from mlx_lm.models.base import scaled_dot_product_attention

from tasks.bench.selftest.models import GROUP, SelfTestCheck, distance
from tasks.runtime.backend import backend, can_wire_memory
from tasks.runtime.device import resident_bytes
from tasks.tuning.model import additive, visible
from tasks.tuning.model import attention as cpu_attention

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
                partial(attention_error, heads, mask),
                backend().rounding,
            )


def product_checks() -> Iterator[SelfTestCheck]:
    """Quantised products at real widths."""
    for inputs, columns in WIDTHS:
        for bits in (4, 8):
            yield SelfTestCheck(
                f"product {inputs} x {columns}, {bits}bit: packed against dequantised",
                partial(product_error, inputs, columns, bits),
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
    exact_arrays = [x.astype(mx.float32) for x in arrays]
    results = []
    for one, inputs in ((function, arrays), (reference, exact_arrays)):
        values, derivatives = mx.vjp(one, inputs, [cotangent.astype(inputs[0].dtype)])
        results.append([*values, *derivatives])
    return max(distance(a, b) for a, b in zip(*results, strict=True))


# Large enough that neither freed memory that is kept nor other threads decide.
ARRAY_BYTES = 256 << 20
FOOTPRINT_LIMIT = 0.2
MISCOUNTED = "memory budgets may be off: leave some memory free, and report it with the file below"
NOT_WIRED = (
    "wiring memory needs macOS 15 and no lower limit in `sysctl iogpu.wired_limit_mb`; "
    "without it, training may slow down when memory is short"
)


def memory_checks() -> Iterator[SelfTestCheck]:
    """Before all others: freed memory that they leave would hide an array's footprint."""
    if not backend().own_memory:
        yield SelfTestCheck(
            "footprint of a 256 MB array",
            footprint_error,
            FOOTPRINT_LIMIT,
            "of its bytes missed by the system's count",
            "warning",
            MISCOUNTED,
        )
    if backend().wires_memory:
        yield SelfTestCheck(
            "wired memory limit",
            wired_bytes,
            recommended_bytes(),
            "bytes",
            "warning",
            NOT_WIRED,
            at_least=True,
        )


def footprint_error() -> float:
    """How far the growth of this process is from the bytes of a new array, as a share of them."""
    bytes_before = resident_bytes()
    array = mx.full(ARRAY_BYTES, 7, dtype=mx.uint8)
    mx.eval(array)
    return abs((resident_bytes() - bytes_before) / array.nbytes - 1)


def recommended_bytes() -> int:
    """The working set that Metal recommends."""
    return int(mx.device_info()["max_recommended_working_set_size"])


def wired_bytes() -> int:
    """The limit that is accepted where the recommended working set is asked to be wired, so that
    weights are never paged out. The old limit is restored.

    MLX accepts any limit in silence where macOS wires nothing, so its version counts too.
    """
    accepted = 0
    # Raised for more than a limit that the user has set.
    with contextlib.suppress(RuntimeError, ValueError):
        previous_limit = mx.set_wired_limit(recommended_bytes())
        accepted = mx.set_wired_limit(previous_limit) if can_wire_memory() else 0
    return accepted
