"""Checks of memory: what MLX and the system count, and limits that they keep to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mlx.core as mx

from tasks.bench.selftest.check import SelfTestCheck
from tasks.runtime.backend import backend, can_wire_memory
from tasks.runtime.memory import resident_bytes

CACHE_LIMIT = 64 << 20
CACHE_BLOCK = CACHE_LIMIT // 4
# Large enough that neither freed memory that is kept nor other threads decide.
ARRAY_BYTES = 256 << 20
FOOTPRINT_LIMIT = 0.2
MISCOUNTED = "memory budgets may be off: leave some memory free, and report it with the file below"
KEPT = "freed memory is kept, so that more is used than planned; leave some free"
NOT_WIRED = (
    "wiring memory needs macOS 15 and no lower limit in `sysctl iogpu.wired_limit_mb`; "
    "without it, training may slow down when memory is short"
)


def memory_checks() -> Iterator[SelfTestCheck]:
    """In this order: freed memory that later checks leave would hide an array's footprint."""
    if not backend().own_memory:
        yield SelfTestCheck(
            "footprint of a 256 MB array",
            footprint_error,
            FOOTPRINT_LIMIT,
            "of its bytes missed by the system's count",
            "warning",
            MISCOUNTED,
        )

    yield SelfTestCheck(
        "MLX's count of a 256 MB array",
        count_error,
        0,
        "bytes missed",
        "warning",
        MISCOUNTED,
    )
    if backend().on_gpu:
        yield SelfTestCheck(
            "cache limit",
            cached_bytes,
            CACHE_LIMIT + CACHE_BLOCK,
            "bytes",
            "warning",
            KEPT,
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
    array = _array()
    growth = resident_bytes() - bytes_before
    del array
    return abs(growth / ARRAY_BYTES - 1)


def count_error() -> float:
    """How far the bytes that MLX counts for a new array are from its size, beyond a page."""
    bytes_before = mx.get_active_memory()
    array = _array()
    counted = mx.get_active_memory() - bytes_before
    del array
    return max(0, abs(counted - ARRAY_BYTES) - (64 << 10))


def _array() -> mx.array:
    array = mx.full(ARRAY_BYTES, 7, dtype=mx.uint8)
    mx.eval(array)
    return array


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


def cached_bytes() -> int:
    """What the allocator's cache holds after four times its limit is freed. The old limit is
    restored.

    MLX looks at the cache before it adds a freed block, so that it holds one more at most.
    """
    previous_limit = mx.set_cache_limit(CACHE_LIMIT)
    mx.clear_cache()
    count = 4 * CACHE_LIMIT // CACHE_BLOCK
    blocks = [mx.full(CACHE_BLOCK, i, dtype=mx.uint8) for i in range(count)]
    mx.eval(blocks)
    del blocks
    cached = mx.get_cache_memory()
    mx.set_cache_limit(previous_limit)

    return cached
