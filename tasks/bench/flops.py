"""Work and speed of matrix products: the FLOPs of a step, and the speed that this machine reaches."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

PRODUCTS = ("Matmul", "AddMM", "QuantizedMatmul")
SPEED_REPEATS = 15


def matmul_flops(model: nn.Module, loss: Callable[[nn.Module], mx.array]) -> int:
    """FLOPs of all matrix products in loss and gradients, counted in the graph that MLX builds for
    them.

    A product of (..., M, K) and (K, N) counts 2 M N K. Products that no gradient needs are not in
    the graph.
    """
    weights: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
    value_and_gradient = nn.value_and_grad(model, loss)

    def step(**parameters: mx.array) -> list[mx.array]:
        model.update(tree_unflatten(list(parameters.items())))
        value, gradients = value_and_gradient(model)
        return [value, *(gradient for _, gradient in tree_flatten(gradients))]

    nodes: list[dict[str, Any]] = []
    with _on_cpu():
        mx.export_function(nodes.append, step, **weights)  # type: ignore[arg-type]  # keywords are the step's
    model.update(tree_unflatten(list(weights.items())))
    return sum(_flops(node) for node in nodes if node.get("name") in PRODUCTS)


@contextlib.contextmanager
def _on_cpu() -> Iterator[None]:
    """The graph is the CPU's: a GPU's has fused operations, which MLX cannot export. Nothing is
    computed.
    """
    device = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        yield
    finally:
        mx.set_default_device(device)


def _flops(node: dict[str, Any]) -> int:
    _, left, _ = node["inputs"][0]
    _, out, _ = node["outputs"][0]
    return 2 * math.prod(out) * int(left[-1])


def matmul_speed(rows: int, inner: int, columns: int) -> float:
    """Median speed in GFLOP/s of float32 products (rows, inner) x (inner, columns), laid out as a
    linear layer's.
    """
    x = mx.array(np.random.default_rng(0).random((rows, inner), np.float32))
    weight = mx.array(np.random.default_rng(0).random((columns, inner), np.float32))
    mx.eval(x @ weight.T)

    seconds = []
    for _ in range(SPEED_REPEATS):
        start = time.perf_counter()
        mx.eval(x @ weight.T)
        seconds.append(time.perf_counter() - start)

    return float(2 * rows * inner * columns / np.median(seconds) / 1e9)
