"""Checks against references: the same weights unpacked, and stock mlx-lm's loss and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from tasks.bench.selftest.check import SelfTestCheck, relative_to_spread
from tasks.bench.selftest.models import (
    WIDE,
    Subject,
    adapt,
    cases_of,
    make_wide,
    our_gradients,
    outputs,
    stock_gradients,
)
from tasks.bench.setting import largest_difference
from tasks.runtime.backend import backend
from tasks.tuning.model import Stack

# bfloat16 keeps 8 bits, so how far it is off depends on the model. The yardstick is the same model
# unpacked to bfloat16: the quantised kernels' root mean square error may be at most this many times
# the dense ones'. On a GPU only: on CPU MLX's bfloat16 kernels measure about 3, and no study uses
# them.
BFLOAT16_LIMIT = 2.0
# Probabilities of the labels that the product reports. The cases of a tiny model differ little, so
# that only their spread says what a difference means: cpu-packed measures 0.01 to 0.09 of it.
FIDELITY_LIMITS = {"float32": 1e-4, "bfloat16": 0.3}
FIDELITY = "of the spread of the labels' probabilities between cases"
LABEL_TOKENS = (5, 6, 7)


def tiny_checks(subject: Subject) -> Iterator[SelfTestCheck]:
    """A tiny model's kernels, loss and gradients."""
    limit = backend().selftest_tolerance
    title = subject.title
    if backend().on_gpu:
        yield SelfTestCheck(
            f"{title}: packed in bfloat16",
            lambda: bfloat16_error(subject),
            BFLOAT16_LIMIT,
            "times the dense error",
        )

    yield SelfTestCheck(
        f"{title}: packed against dequantised", lambda: packed_error(subject), limit
    )
    yield SelfTestCheck(
        f"{title}: fidelity of packed weights",
        lambda: fidelity(subject),
        FIDELITY_LIMITS[backend().compute_dtype],
        FIDELITY,
    )
    yield SelfTestCheck(f"{title}: loss against stock mlx-lm", lambda: loss_error(subject), limit)
    yield SelfTestCheck(
        f"{title}: gradients against stock mlx-lm", lambda: gradient_error(subject), limit
    )


def wide_checks() -> Iterator[SelfTestCheck]:
    """Gradients at the widths of real models: 576 and 49,152, and a head size of 256."""
    for name in WIDE:
        yield SelfTestCheck(
            f"{name} widths: gradients against stock mlx-lm",
            lambda name=name: wide_gradient_error(name),  # type: ignore[misc]
            10 * backend().selftest_tolerance,
        )


def bfloat16_error(subject: Subject) -> float:
    """Error of the packed model as stored, in units of that of the same model unpacked to bfloat16."""
    dense = subject.dense()
    exact = outputs(dense)
    dense.model.set_dtype(mx.bfloat16)
    return _error(outputs(subject.packed()), exact) / _error(outputs(dense), exact)


def packed_error(subject: Subject) -> float:
    """Logits of the quantised kernels against those of unpacked weights, both in float32."""
    packed = subject.packed()
    packed.model.set_dtype(mx.float32)
    return _largest(outputs(packed), outputs(subject.dense()))


def fidelity(subject: Subject) -> float:
    """Label probabilities of packed weights, in this backend's data type, against unpacked float32:
    root mean square difference, relative to how far cases lie apart.
    """
    packed = subject.packed()
    if backend().compute_dtype == "float32":
        packed.model.set_dtype(mx.float32)
    return relative_to_spread(_probabilities(packed), _probabilities(subject.dense()))


def loss_error(subject: Subject) -> float:
    """Our loss against stock's on packed weights, in float32."""
    (our_loss, _), (stock_loss, _) = _both_results(subject)
    return abs(our_loss - stock_loss) / abs(stock_loss)


def gradient_error(subject: Subject) -> float:
    """Our LoRA gradients against stock's on packed weights, in float32."""
    (_, gradients), (_, stock_gradients) = _both_results(subject)
    return largest_difference(gradients, stock_gradients)


def wide_gradient_error(name: str) -> float:
    """Our LoRA gradients against stock's at a real model's widths, in float32."""
    stacks = [make_wide(name) for _ in range(2)]
    for stack in stacks:
        stack.model.set_dtype(mx.float32)
    cases = cases_of(stacks[0])
    _, gradients = our_gradients(adapt(stacks[0]), cases)
    _, stock = stock_gradients(adapt(stacks[1]), cases)
    return largest_difference(gradients, stock)


def _both_results(subject: Subject) -> tuple[tuple[float, dict[str, mx.array]], ...]:
    stacks = subject.loaded(), subject.packed()
    for stack in stacks:
        stack.model.set_dtype(mx.float32)
    cases = cases_of(stacks[0])
    return our_gradients(adapt(stacks[0]), cases), stock_gradients(adapt(stacks[1]), cases)


def _probabilities(stack: Stack) -> np.ndarray:
    labels = outputs(stack)[:, -1][:, mx.array(LABEL_TOKENS)]
    return np.array(mx.softmax(labels, axis=-1))


def _largest(a: mx.array, b: mx.array) -> float:
    return float(np.array(mx.abs(a - b).max() / mx.abs(b).max()))


def _error(a: mx.array, b: mx.array) -> float:
    mean_square = mx.square(a - b).mean()
    return float(np.array(mx.sqrt(mean_square)))
