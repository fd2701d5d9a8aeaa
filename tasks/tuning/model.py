"""A model taken apart: its embedding, attention, its blocks one by one, so that work can start and
stop at any block and skip rows that are not scored, and its final norm and head. At the end, the
elementwise work of a block in the operations that are fast on a CPU, and passes side by side.

Two model classes of mlx-lm are supported (llama, gemma3_text); others are refused by name.
Shapes: B sequences, T positions, R scored rows per sequence, D hidden size, V vocabulary; H heads,
H_kv of keys, of width d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import scaled_dot_product_attention

from tasks.runtime.backend import backend
from tasks.runtime.device import blas_threads
from tasks.runtime.errors import BadInput

# Added to the score of a position that must not be seen; finite, since `additive` multiplies it by 0.
HIDDEN = -1e9


@dataclass(frozen=True)
class Stack:
    """A model taken apart into its blocks.

    `windows[i]`: block i's sliding window, or None for full attention. `cpu_kernels`: the
    elementwise forms at the end of this file instead of mlx-lm's. `logit_bytes`: logits held at once.
    `checkpointing`: blocks are computed again in the backward pass.
    """

    model: nn.Module
    layers: list[nn.Module]
    windows: tuple[int | None, ...]
    hidden_size: int
    cpu_kernels: bool
    logit_bytes: int = 16 << 20
    checkpointing: bool = False

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    @property
    def dtype(self) -> mx.Dtype:
        """Data type of the blocks' activations."""
        return self.model.model.norm.weight.dtype


def take_apart(model: nn.Module, cpu_kernels: bool = False) -> Stack:
    """A loaded model's blocks. Raises BadInput for a model class that is not supported."""
    kind = getattr(model, "model_type", type(model).__name__)
    layers = list(model.model.layers)
    if kind == "llama":
        slides = [layer.use_sliding for layer in layers]
    elif kind == "gemma3_text":
        # The last of every `pattern` blocks sees everything, as in mlx-lm's gemma3_text.
        pattern = model.args.sliding_window_pattern
        slides = [i % pattern != pattern - 1 for i in range(len(layers))]
    else:
        raise BadInput(
            f"The model class {kind!r} is not supported; supported are llama and gemma3_text."
        )

    windows = tuple(model.args.sliding_window if slides_here else None for slides_here in slides)
    return Stack(model, layers, windows, model.args.hidden_size, cpu_kernels)


def embed(stack: Stack, tokens: mx.array) -> mx.array:
    """Token ids (B, T) to the input of the first block (B, T, D)."""
    # The head, which may be the same matrix, is in float32 where it is not quantised.
    hidden = stack.model.model.embed_tokens(tokens).astype(stack.dtype)
    if stack.model.model_type == "gemma3_text":
        # mlx-lm rounds this factor to bfloat16, as in the model's training; parity needs the same.
        factor = mx.array(stack.hidden_size**0.5, mx.bfloat16)
        hidden = hidden * factor.astype(hidden.dtype)
    return hidden


def project(stack: Stack, hidden: mx.array) -> mx.array:
    """Final norm and head: (..., D) -> logits (..., V) in float32."""
    normed = final_norm(stack, hidden)
    head = head_of(stack.model)
    return head(normed) if head is stack.model.get("lm_head") else head.as_linear(normed)


def head_of(model: nn.Module) -> nn.Module:
    """The module of the head's matrix: the embedding's where they share it."""
    return model.lm_head if "lm_head" in model else model.model.embed_tokens


def final_norm(stack: Stack, hidden: mx.array) -> mx.array:
    """(..., D) -> (..., D) in float32: bfloat16 logits of 16 and more are eighths, so labels tie."""
    return stack.model.model.norm(hidden).astype(mx.float32)


# An array, a word that the fused kernels know, or None for one position.
Mask = mx.array | str | None


class SharedPast:
    """A KV cache of the leading tokens, which every sequence of a batch shares."""

    def __init__(self, keys: mx.array | None = None, values: mx.array | None = None) -> None:
        self.keys = keys
        self.values = values

    @property
    def offset(self) -> int:
        """Number of leading tokens, 0 before they are recorded."""
        return 0 if self.keys is None else self.keys.shape[2]

    def arrays(self) -> list[mx.array]:
        return [] if self.keys is None or self.values is None else [self.keys, self.values]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """(B, heads, T, d) of new tokens to (B, heads, P + T, d) of all; the first call records the P
        leading ones, as a batch of one.
        """
        if self.keys is None or self.values is None:
            self.keys = keys
            self.values = values
            return keys, values

        # Not kept: the next batch starts from the leading tokens again.
        shape = (keys.shape[0], *self.keys.shape[1:])
        return (
            mx.concatenate([mx.broadcast_to(self.keys, shape), keys], axis=2),
            mx.concatenate([mx.broadcast_to(self.values, shape), values], axis=2),
        )


def attention_mask(stack: Stack, length: int, window: int | None, offset: int) -> Mask:
    """The mask of block inputs of `length` positions after `offset` earlier ones."""
    if offset == 0 and not stack.cpu_kernels and not (window and length > window):
        # mlx-lm names a plain causal mask by a word, which the fused kernels know.
        return "causal" if length > 1 else None

    visible_keys = visible(mx.arange(offset, offset + length)[:, None], offset + length, window)
    return additive(visible_keys) if stack.cpu_kernels else visible_keys


def visible(query: mx.array, keys: int, window: int | None) -> mx.array:
    """Boolean mask (..., queries, keys): causal, and within the window if there is one."""
    key = mx.arange(keys)
    mask = key <= query
    return mask & (key > query - window) if window else mask


def attended(
    stack: Stack, module: nn.Module, queries: mx.array, keys: mx.array, values: mx.array, mask: Mask
) -> mx.array:
    """(B, H, R, d) queries over keys and values (B, H_kv, T, d): (B, R, H d)."""
    if stack.cpu_kernels:
        assert isinstance(mask, mx.array)
        output = attention(queries, keys, values, module.scale, mask)
    else:
        output = scaled_dot_product_attention(
            queries, keys, values, cache=None, scale=module.scale, mask=mask
        )

    batch, _, rows, _ = queries.shape
    return output.transpose(0, 2, 1, 3).reshape(batch, rows, -1)


def queries_of(module: nn.Module, hidden: mx.array, offset: int | mx.array) -> mx.array:
    """(B, R, D) to queries (B, H, R, d)."""
    batch, rows, _ = hidden.shape
    queries = module.q_proj(hidden).reshape(batch, rows, module.n_heads, -1)
    if "q_norm" in module:
        queries = module.q_norm(queries)
    return module.rope(queries.transpose(0, 2, 1, 3), offset=offset)


def keys_and_values(module: nn.Module, normed: mx.array, offset: int) -> tuple[mx.array, mx.array]:
    """(B, T, D) to keys and values (B, heads, T, d), without the past."""
    batch, length, _ = normed.shape
    keys = module.k_proj(normed).reshape(batch, length, module.n_kv_heads, -1)
    values = module.v_proj(normed).reshape(batch, length, module.n_kv_heads, -1)
    if "k_norm" in module:
        keys = module.k_norm(keys)
    keys = module.rope(keys.transpose(0, 2, 1, 3), offset=offset)
    return keys, values.transpose(0, 2, 1, 3)


def run_blocks(
    stack: Stack,
    hidden: mx.array,
    start: int,
    stop: int,
    past: Sequence[SharedPast | None] | None = None,
) -> mx.array:
    """Blocks start..stop-1 over (B, T, D); `past[i]`: block i's KV cache of earlier positions."""
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

    Everything that gradients flow through is an argument or a result, the block's trained tensors
    too, and the dropout masks of this call are restored for the second computation.
    """
    masks = [(one, one.keys_now) for one in layer.modules() if hasattr(one, "keys_now")]

    def again(weights: dict[str, object], *inputs: Any) -> Any:
        layer.update(weights)
        # The keys stay set after the backward pass; whoever computes without dropout removes them.
        for module, state in masks:
            module.set_keys(*state)
        return run(*inputs)

    return partial(mx.checkpoint(again), layer.trainable_parameters())


def last_rows(
    stack: Stack,
    hidden: mx.array,
    normed: mx.array,
    keys: mx.array,
    values: mx.array,
    first_row: mx.array,
    rows: int,
) -> mx.array:
    """The last block for `rows` rows of each sequence from its position `first_row` (B,) on, given
    keys and values of every position: (B, T, D) -> (B, rows, D).

    `normed`: `hidden` after the first norm. Rows past a sequence's end must be masked by the caller.
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
    gated: Any = geglu if stack.model.model_type == "gemma3_text" else swiglu
    product, _ = gated(mlp.gate_proj(normed), mlp.up_proj(normed))
    return mlp.down_proj(product)


# The elementwise work of a block on a CPU. Measured on MLX's x86 build, nanoseconds per element:
# exp 18, sigmoid 28, where 8, softmax 29, but tanh 6 and arithmetic below 1. So the sigmoid and the
# exponential are written with tanh, masks are added, and queries that share a key-value head go
# through one larger product. MLX computes a tanh a second time to differentiate it, so the
# derivatives are written out. All equal stock to float32 rounding.

# The constants of the tanh approximation of gelu.
GELU = math.sqrt(2 / math.pi)
CUBIC = 0.044715


@mx.custom_function
def swiglu(gate: mx.array, up: mx.array) -> tuple[mx.array, mx.array]:
    """silu(gate) * up, with sigmoid(x) = (1 + tanh(x / 2)) / 2, and that sigmoid."""
    sigmoid = 0.5 * mx.tanh(0.5 * gate) + 0.5
    # The sigmoid is a result too, for the derivative alone: callers take the product.
    return gate * sigmoid * up, sigmoid


@swiglu.vjp
def _swiglu_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    gate, up = primals
    cotangent = cotangents[0]
    sigmoid = outputs[1]
    silu = gate * sigmoid
    return cotangent * up * (sigmoid + silu * (1 - sigmoid)), cotangent * silu


@mx.custom_function
def geglu(gate: mx.array, up: mx.array) -> tuple[mx.array, mx.array]:
    """gelu(gate) * up in the tanh approximation (Hendrycks & Gimpel 2016), and its tanh."""
    t = mx.tanh(GELU * gate * (1 + CUBIC * gate * gate))
    return 0.5 * gate * (1 + t) * up, t


@geglu.vjp
def _geglu_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    gate, up = primals
    cotangent = cotangents[0]
    t = outputs[1]
    # The derivative of x (1 + tanh(GELU (x + CUBIC x^3))) / 2.
    half = 0.5 * (1 + t)
    slope = half + 0.5 * GELU * gate * (1 - t * t) * (1 + 3 * CUBIC * gate * gate)
    return cotangent * up * slope, cotangent * gate * half


def exp_of_minus(y: mx.array) -> mx.array:
    """exp(-y) for y >= 0: the form in `softmax` of y / 8, to the power 8, so that small values count."""
    t = mx.tanh(y / 16)
    root = (1 - t) / (1 + t)
    return (root * root).square().square()


@mx.custom_function
def softmax(scores: mx.array) -> mx.array:
    """Softmax over the last axis, with exp(-y) = (1 - t) / (1 + t), t = tanh(y / 2), for y >= 0.

    The absolute error is one float32 rounding.
    """
    t = mx.tanh(0.5 * (scores.max(axis=-1, keepdims=True) - scores))
    exponentials = (1 - t) / (1 + t)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@softmax.vjp
def _softmax_vjp(scores: mx.array, cotangent: mx.array, weights: mx.array) -> mx.array:
    weighted = cotangent * weights
    return weighted - weights * weighted.sum(axis=-1, keepdims=True)


def attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array
) -> mx.array:
    """Grouped-query attention: queries (B, H, R, d), keys and values (B, H_kv, T, d), additive mask
    (..., R, T).
    """
    batch, heads, rows, width = queries.shape
    groups = keys.shape[1]
    grouped = (queries * scale).reshape(batch, groups, (heads // groups) * rows, width)
    scores = (grouped @ keys.swapaxes(-1, -2)).reshape(batch, heads, rows, -1) + mask
    weights: mx.array = softmax(scores)  # type: ignore[assignment]
    weights = weights.reshape(batch, groups, (heads // groups) * rows, -1)
    return (weights @ values).reshape(batch, heads, rows, width)


def additive(visible: mx.array) -> mx.array:
    """A boolean mask as an additive one."""
    return (1 - visible.astype(mx.float32)) * HIDDEN


Job = TypeVar("Job")


def side_by_side(
    lists: Iterable[Sequence[Job]], work: Callable[[Job], Any]
) -> Iterator[tuple[Job, Any]]:
    """(job, work(job)) in the order of the jobs: some of a list at once on a CPU, and on a GPU one after
    the other, each handed over before the one before it is read.

    `work` builds arrays lazily, on a CPU from arrays that are evaluated.
    """
    count = len(streams())
    handed_over: list[tuple[Job, Any]] = []
    for group in (jobs[i : i + count] for jobs in lists for i in range(0, len(jobs), count)):
        results = []
        for job, stream in zip(group, streams(), strict=False):
            with mx.stream(stream):
                results.append(work(job))

        if count == 1:
            mx.async_eval(results)  # type: ignore[no-untyped-call]
            yield from handed_over
            handed_over = [(group[0], results[0])]
            continue

        # In one call: a graph handed over first would be done first.
        previous_threads = blas_threads(1) if len(group) > 1 else None
        try:
            mx.eval(results)
        finally:
            if previous_threads is not None:
                blas_threads(previous_threads)

        yield from zip(group, results, strict=True)

    yield from handed_over


@cache
def streams() -> list[Any]:
    """The streams on which batches run at once, each with memory of its own."""
    # The number is told only by the call that changes it, so it is set back below.
    threads = blas_threads(1) if backend().cpu_kernels else None
    if threads is None:
        return [mx.default_stream(mx.default_device())]

    # As many streams as the BLAS had threads: a user may have set fewer than there are cores.
    blas_threads(threads)
    return [mx.new_stream(mx.cpu) for _ in range(threads)]
