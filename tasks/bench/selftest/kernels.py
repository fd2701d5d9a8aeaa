"""Checks of single kernels with their derivatives: attention, and the product of every precision; and of
memory: what the watchdog counts, and what can be wired.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.utils import dequantize_model

from tasks.bench.selftest.models import SelfTestCheck, distance
from tasks.precisions import BUILT_IN, MODES, Precision
from tasks.runtime.backend import CPU_PACKED, backend, can_wire_memory
from tasks.runtime.device import resident_bytes
from tasks.tuning.model import additive, visible
from tasks.tuning.model import attention as cpu_attention

# Query heads, key heads and size of a head of SmolLM2-135M and of Gemma.
HEADS = ((9, 3, 64), (4, 1, 256))
TOKENS = 96
WINDOW = 32
# Rows of a product: each kind of kernel that MLX takes by their number, with odd ones.
ROWS = (1, 3, 9, 350, 2400)
# Inputs and outputs of a product: SmolLM2's blocks and Gemma's on a GPU. On a CPU Gemma's keys alone,
# and less in bfloat16, whose products run at 0.4 GFLOP/s.
WIDTHS_OF_A_GPU = ((576, 1536), (1536, 576), (1024, 640))
WIDTHS = {mx.float32: ((640, 256),), mx.bfloat16: ((128, 64),)}

Function = Callable[..., mx.array]


def rounding(dtype: mx.Dtype) -> float:
    """The largest `distance` of results in a data type that are equal but for rounding."""
    if dtype == mx.float32:
        return backend().selftest_tolerance
    return backend().rounding if backend().on_gpu else CPU_PACKED.rounding


def compute_dtype() -> mx.Dtype:
    """The data type of this backend's blocks."""
    return mx.float32 if backend().compute_dtype == "float32" else mx.bfloat16


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
    """The product of every precision, in both data types that a step computes in."""
    for precision in BUILT_IN.values():
        for dtype, title in ((mx.float32, "float32"), (mx.bfloat16, "bfloat16")):
            yield SelfTestCheck(
                f"product, {precision.name}, {title}: packed against dequantised",
                partial(product_error, precision, dtype),
                rounding(dtype),
            )


def attention_error(heads: tuple[int, int, int], mask: str) -> float:
    """Attention as a training here computes it, against its definition in float32."""
    queries, keys, size = heads
    arrays = [
        _draw((2, count, TOKENS, size), seed).astype(compute_dtype())
        for seed, count in enumerate((queries, keys, keys))
    ]
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

    return _distance(fused, unfused, arrays)


def product_error(precision: Precision, dtype: mx.Dtype) -> float:
    """The product of a layer and its derivative in the inputs against unpacked weights in float32:
    the worst of all numbers of rows, widths, and sizes of a group that a grid may choose.
    """
    widths = WIDTHS_OF_A_GPU if backend().on_gpu else WIDTHS[dtype]
    sizes: Sequence[int | None] = [precision.group_size_in(0)]
    if precision.groups_follow_the_grid:
        sizes = MODES[precision.mode].group_sizes
    # The widths of a value in a mixed precision.
    bits = {precision.bits, precision.high_bits or precision.bits}

    def error(width: tuple[int, int], size: int | None, bits: int | None, rows: int) -> float:
        if size and width[0] % size:
            return 0.0  # MLX has no such group
        layer = nn.Linear(*width, bias=False)
        layer.weight = _draw(width[::-1], rows).astype(mx.bfloat16)
        if precision.is_quantised:
            layer = nn.QuantizedLinear.from_linear(layer, size, bits, mode=precision.mode)
        # With float32 scales unpacking is exact.
        layer.set_dtype(mx.float32)
        weight = dequantize_model(nn.Sequential(layer)).layers[0].weight.astype(mx.float32)
        layer.set_dtype(dtype)
        x = _draw((rows, width[0]), rows + 1).astype(dtype)
        return _distance(layer, lambda x: x @ weight.T, [x])

    return max(error(*case) for case in itertools.product(widths, sizes, bits, ROWS))


def _draw(shape: tuple[int, ...], seed: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def _distance(function: Function, reference: Function, arrays: list[mx.array]) -> float:
    """The largest distance of a function's value and derivatives to those of its reference, which
    gets the same inputs in float32.
    """
    exact_arrays = [x.astype(mx.float32) for x in arrays]
    cotangent = _draw(function(*arrays).shape, 9)
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
        title = "footprint of a 256 MB array"
        missed = "of its bytes missed by the system's count"
        yield SelfTestCheck(title, footprint_error, FOOTPRINT_LIMIT, missed, "warning", MISCOUNTED)
    if backend().wires_memory:
        name, least = "wired memory limit", recommended_bytes()
        yield SelfTestCheck(name, wired_bytes, least, "bytes", "warning", NOT_WIRED, at_least=True)


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
