"""The blocks of a model one by one, so that work can start and stop at any block and skip unscored
rows.

Shapes: B sequences, T positions, R scored rows per sequence, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from tasks.tuning.architecture import Stack
from tasks.tuning.attention import (
    Mask,
    SharedPast,
    attended,
    attention_mask,
    keys_and_values,
    queries_of,
    visible,
)
from tasks.tuning.cpu_kernels import additive, geglu, swiglu


def run_blocks(
    stack: Stack,
    hidden: mx.array,
    start: int,
    stop: int,
    past: Sequence[SharedPast | None] | None = None,
) -> mx.array:
    """Blocks start..stop-1 over (B, T, D).

    `past[i]`: a cache for block i that holds earlier positions, or None.
    """
    masks: dict[int | None, Mask] = {}
    for i in range(start, stop):
        window = stack.windows[i]
        cache = past[i] if past else None
        offset = cache.offset if cache is not None else 0
        # Before its turn each block's cache has the same length, so one mask per window is enough.
        if window not in masks:
            masks[window] = attention_mask(stack, hidden.shape[1], window, offset)

        run = _checkpointed if stack.checkpointing else _run_block
        hidden = run(stack, i, hidden, masks[window], cache)

    return hidden


def _run_block(
    stack: Stack, i: int, hidden: mx.array, mask: Mask, cache: SharedPast | None
) -> mx.array:
    layer = stack.layers[i]
    if not stack.cpu_kernels:
        return layer(hidden, mask, cache)

    module = layer.self_attn
    normed = layer.input_layernorm(hidden)
    offset = cache.offset if cache is not None else 0
    queries = queries_of(module, normed, offset)
    keys, values = keys_and_values(module, normed, offset)
    if cache is not None:
        keys, values = cache.update_and_fetch(keys, values)

    output = module.o_proj(attended(stack, module, queries, keys, values, mask))
    return finish_block(stack, layer, hidden, output)


def _checkpointed(
    stack: Stack, i: int, hidden: mx.array, mask: Mask, cache: SharedPast | None
) -> mx.array:
    """The block, computed a second time in the backward pass, with the leading tokens' keys and
    values as arguments or results.
    """

    def run(hidden: mx.array, leading: list[mx.array]) -> tuple[mx.array, list[mx.array]]:
        past = SharedPast(*leading) if cache is not None else None
        hidden = _run_block(stack, i, hidden, mask, past)
        return hidden, past.arrays() if past is not None and not leading else []

    leading = cache.arrays() if cache is not None else []
    hidden, recorded = computed_again(stack.layers[i], run)(hidden, leading)
    if recorded and cache is not None:
        cache.keys, cache.values = recorded

    return hidden


def computed_again(layer: nn.Module, run: Callable[..., Any]) -> Callable[..., Any]:
    """`run`, which computes a block, computed a second time in the backward pass.

    Stock mlx-lm's checkpointing patches the class for good; this affects one call. Everything that
    gradients flow through is an argument or a result, the block's trained tensors too, and the
    dropout masks of this call are restored for the second computation.
    """
    masks = dropout_states(layer)

    def again(weights: dict[str, object], *inputs: Any) -> Any:
        layer.update(weights)
        # The keys stay set after the backward pass; whoever computes without dropout removes them.
        for module, state in masks:
            module.set_keys(*state)
        return run(*inputs)

    return partial(mx.checkpoint(again), layer.trainable_parameters())


def dropout_states(layer: nn.Module) -> list[tuple[Any, Any]]:
    """The dropout modules of a block and their keys, to be set again before a second computation."""
    return [(module, module.keys_now) for module in layer.modules() if hasattr(module, "keys_now")]


def run_last_block(
    stack: Stack, hidden: mx.array, first_row: mx.array, rows: int, past: SharedPast | None = None
) -> mx.array:
    """The last block, computed for `rows` consecutive positions per sequence only: (B, T, D) -> (B,
    rows, D).

    Keys and values are needed at every position; queries, output projection and MLP only where a
    row is scored. `first_row` (B,) is the first scored position of each sequence within `hidden`.
    Rows past a sequence's own end are computed and must be masked by the caller.
    """
    layer = stack.layers[-1]
    offset = past.offset if past is not None else 0
    normed = layer.input_layernorm(hidden)
    keys, values = keys_and_values(layer.self_attn, normed, offset)
    if past is not None:
        keys, values = past.update_and_fetch(keys, values)
    return last_rows(stack, hidden, normed, keys, values, first_row, rows)


def last_rows(
    stack: Stack,
    hidden: mx.array,
    normed: mx.array,
    keys: mx.array,
    values: mx.array,
    first_row: mx.array,
    rows: int,
) -> mx.array:
    """The last block for `rows` rows of each sequence, given its keys and values at every position.

    `normed`: `hidden` after the first norm.
    """
    i = stack.depth - 1
    layer = stack.layers[i]
    module = layer.self_attn
    length = hidden.shape[1]
    offset = keys.shape[2] - length
    # MLX checks no bounds: rows past the end read the last position, and the caller drops them.
    index = mx.minimum(first_row[:, None] + mx.arange(rows)[None, :], length - 1)
    last_normed = mx.take_along_axis(normed, index[:, :, None], axis=1)
    # rope takes the position of each sequence's first row; its other rows follow that one.
    queries = queries_of(module, last_normed, index[:, 0] + offset)

    visible_keys = visible((index + offset)[:, None, :, None], offset + length, stack.windows[i])
    mask = additive(visible_keys) if stack.cpu_kernels else visible_keys
    output = module.o_proj(attended(stack, module, queries, keys, values, mask))
    scored = mx.take_along_axis(hidden, index[:, :, None], axis=1)

    return finish_block(stack, layer, scored, output)


def record_past(stack: Stack, i: int, hidden: mx.array, past: SharedPast) -> None:
    """Keys and values of block i for leading tokens (1, P, D), and nothing else of the block."""
    layer = stack.layers[i]
    keys, values = keys_and_values(layer.self_attn, layer.input_layernorm(hidden), 0)
    past.update_and_fetch(keys, values)


def finish_block(stack: Stack, layer: nn.Module, hidden: mx.array, output: mx.array) -> mx.array:
    """What follows a block's attention, whose projected output is `output`."""
    # Gemma 3 normalises both branches before adding them.
    if "pre_feedforward_layernorm" in layer:
        hidden = hidden + layer.post_attention_layernorm(output)
        output = _mlp(stack, layer.mlp, layer.pre_feedforward_layernorm(hidden))
        return hidden + layer.post_feedforward_layernorm(output)

    hidden = hidden + output
    return hidden + _mlp(stack, layer.mlp, layer.post_attention_layernorm(hidden))


def _mlp(stack: Stack, mlp: nn.Module, normed: mx.array) -> mx.array:
    if not stack.cpu_kernels:
        return mlp(normed)
    gated = geglu if stack.model.model_type == "gemma3_text" else swiglu
    return mlp.down_proj(gated(mlp.gate_proj(normed), mlp.up_proj(normed)))
