"""Parts of a batch computed side by side on a CPU, one core each.

MLX's CPU kernels other than matrix products use a single core, and a matrix product on one core comes closer to that
core's peak than one spread over several. So each part gets a thread, a stream and a BLAS of few threads. The parts are
fixed by the batch and their results are added in order: which thread is faster changes nothing.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import mlx.core as mx
import mlx.nn as nn

from tasks.runtime.device import backend

T = TypeVar("T")
_building = threading.Lock()  # building a graph sets MLX's default stream and the model's own state
_own = threading.local()


def lane_count() -> int:
    """How many parts to compute at once: one per core on a CPU, one on a GPU."""
    if backend() == "metal":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def split(chosen: Sequence[int], parts: int) -> list[Sequence[int]]:
    """At most `parts` consecutive slices of nearly equal length, none empty."""
    parts = max(1, min(parts, len(chosen)))
    ends = [round(i * len(chosen) / parts) for i in range(parts + 1)]
    return [chosen[a:b] for a, b in itertools.pairwise(ends)]


def in_lanes(model: nn.Module, builders: Sequence[Callable[[], T]]) -> list[T]:
    """Call the builders, evaluate the arrays (a tree) that each returns, and return those in the builders' order.

    Builders run one at a time; only the evaluation is side by side. `model` holds all arrays that they share.
    """
    lanes = min(lane_count(), len(builders))
    if lanes <= 1:
        return [_evaluated(build()) for build in builders]
    _settle(model)
    _blas_threads(max(1, lane_count() // lanes))
    try:
        return list(_pool(lanes).map(_in_own_stream, builders))
    finally:
        _blas_threads(lane_count())


def _in_own_stream(build: Callable[[], T]) -> T:
    if not hasattr(_own, "stream"):
        _own.stream = mx.new_stream(mx.cpu)
    with _building, mx.stream(_own.stream):
        result = build()
    return _evaluated(result)


def _evaluated(result: T) -> T:
    mx.eval(result)
    mx.eval(result)  # a second time only marks them as ready, so that other threads need not
    return result


def _settle(model: nn.Module) -> None:
    """Evaluate every array of the model, hidden ones included: a thread cannot evaluate what another left undone."""
    arrays = [value for module in model.modules() for value in module.values() if isinstance(value, mx.array)]
    mx.eval(arrays)
    mx.eval(arrays)


@functools.cache
def _pool(lanes: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(lanes, thread_name_prefix="lane")


def _blas_threads(count: int) -> None:
    for name in ("MKL_Set_Num_Threads", "openblas_set_num_threads"):
        if hasattr(_symbols(), name):
            getattr(_symbols(), name)(ctypes.c_int(count))


@functools.cache
def _symbols() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # the process's own, where tasks.runtime.device has put the BLAS
