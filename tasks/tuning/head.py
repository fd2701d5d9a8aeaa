"""The scores that the loss needs of the head's logits, of which only a bounded block is held at
once.

Gemma's head has 262,144 columns: a block of rows times all of them, and as much again for each
gradient, would be the largest arrays of a step. Where they exceed the bound, the logarithm of the
sum of exponentials runs over blocks of columns, one after the other, and the gradient computes the
blocks a second time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from tasks.tuning.architecture import Stack, final_norm, project
from tasks.tuning.cpu_kernels import exp_of_minus


@dataclass(frozen=True)
class RowScores:
    """float32: log of the sum of exponentials (N, R), logit of each target (N, R), logits of the
    labels (N, L).
    """

    normaliser: mx.array
    targets: mx.array
    labels: mx.array


def score_rows(stack: Stack, hidden: mx.array, targets: mx.array, labels: mx.array) -> RowScores:
    """Scores of hidden states (N, R, D) before the final norm.

    `labels` (L,): token ids, read at the first row.
    """
    head = _head(stack)
    rows = hidden.shape[0] * hidden.shape[1]
    if rows * _size(head) * 4 <= stack.logit_bytes:
        logits = project(stack, hidden)
        target_logits = mx.take_along_axis(logits, targets[:, :, None], axis=-1)[:, :, 0]
        return RowScores(mx.logsumexp(logits, axis=-1), target_logits, logits[:, 0, labels])

    normed = final_norm(stack, hidden)
    columns = max(1, stack.logit_bytes // (4 * rows))
    normaliser = blocked_logsumexp(head, normed.reshape(rows, -1), columns, stack.cpu_kernels)
    # (N, R, D) with one row of the head each, and (N, D) with those of the labels.
    target_logits = (normed * _rows(head, targets)).sum(axis=-1)
    label_logits = normed[:, 0] @ _rows(head, labels).T

    return RowScores(normaliser.reshape(targets.shape), target_logits, label_logits)


def blocked_logsumexp(
    head: nn.Module, hidden: mx.array, block: int, fast_exp: bool = False
) -> mx.array:
    """log sum exp over all columns of a frozen head: (M, D) -> (M,), `block` columns at a time,
    gradient included.
    """
    ends = [*range(0, _size(head), block), _size(head)]
    exp: Callable[[mx.array], mx.array] = exp_of_minus if fast_exp else lambda y: mx.exp(-y)

    @mx.custom_function
    def total(x: mx.array) -> mx.array:
        top = mx.full(x.shape[:1], -mx.inf)
        mass = mx.zeros(x.shape[:1])
        for start, stop in itertools.pairwise(ends):
            # The dependency makes MLX finish one block before it allocates the next.
            logits = _logits(head, mx.depends(x, mass), start, stop)
            # What was summed under the old maximum is scaled to the new one (online softmax): at
            # the first block by exp(-inf) = 0.
            new_top = mx.maximum(top, logits.max(axis=-1))
            mass = mass * mx.exp(top - new_top) + exp(new_top[:, None] - logits).sum(axis=-1)
            top = new_top

        return top + mx.log(mass)

    @total.vjp
    def _(x: mx.array, cotangent: mx.array, value: mx.array) -> mx.array:
        gradient = mx.zeros_like(x)
        for start, stop in itertools.pairwise(ends):
            logits = _logits(head, mx.depends(x, gradient), start, stop)
            share = exp(value[:, None] - logits) * cotangent[:, None]
            gradient = gradient + _hidden_gradient(head, share, start, stop)
        return gradient

    result: mx.array = total(hidden)  # type: ignore[assignment]
    return result


def _head(stack: Stack) -> nn.Module:
    return stack.model.lm_head if "lm_head" in stack.model else stack.model.model.embed_tokens


def _size(head: nn.Module) -> int:
    return int(head.weight.shape[0])


def _logits(head: nn.Module, x: mx.array, start: int, stop: int) -> mx.array:
    """(M, D) -> (M, stop - start), float32 as `x` is."""
    return _product(head, x, slice(start, stop), transpose=True)


def _hidden_gradient(head: nn.Module, share: mx.array, start: int, stop: int) -> mx.array:
    """(M, stop - start) -> (M, D)."""
    return _product(head, share, slice(start, stop), transpose=False)


def _product(head: nn.Module, x: mx.array, columns: slice, transpose: bool) -> mx.array:
    if "scales" not in head:
        return x @ (head.weight[columns].T if transpose else head.weight[columns])

    biases = head.get("biases")
    return mx.quantized_matmul(
        x,
        head.weight[columns],
        scales=head.scales[columns],
        biases=None if biases is None else biases[columns],
        transpose=transpose,
        group_size=head.group_size,
        bits=head.bits,
        mode=head.mode,
    )


def _rows(head: nn.Module, ids: mx.array) -> mx.array:
    """Rows of the head's matrix (..., D) for token ids, in float32 as a product with float32
    unpacks them.
    """
    if "scales" not in head:
        return head.weight[ids].astype(mx.float32)

    biases = head.get("biases")
    scales = head.scales[ids]
    if head.mode == "affine":  # the other modes keep their scales in a byte
        scales = scales.astype(mx.float32)

    return mx.dequantize(
        head.weight[ids],
        scales=scales,
        biases=None if biases is None else biases[ids].astype(mx.float32),
        group_size=head.group_size,
        bits=head.bits,
        mode=head.mode,
        dtype=mx.float32,
    )
