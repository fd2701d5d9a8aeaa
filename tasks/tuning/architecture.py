"""A model taken apart: its embedding, its blocks described, its final norm and head.

Two model classes of mlx-lm are supported (llama, gemma3_text); others are refused by name.
Shapes: B sequences, T positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from tasks.runtime.errors import BadInput


@dataclass(frozen=True)
class Stack:
    """A model taken apart into its blocks.

    `windows[i]`: block i's sliding window, or None for full attention. `cpu_kernels`: the
    elementwise forms of cpu_kernels.py instead of mlx-lm's. `logit_bytes`: logits held at once;
    more rows than that are scored a block of columns at a time. `checkpointing`: keep only each
    block's input for the backward pass, and compute the rest again.
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

    def joins(self, leading: int) -> bool:
        """Whether a step computes so many leading tokens and a batch's own as one row (joined.py)."""
        return leading > 0 and not self.cpu_kernels

    @property
    def dtype(self) -> mx.Dtype:
        """Data type of the blocks' activations."""
        return self.model.model.norm.weight.dtype


def take_apart(model: nn.Module, cpu_kernels: bool = False) -> Stack:
    """Describe a loaded model's blocks. Raises BadInput for a model class that is not supported."""
    kind = getattr(model, "model_type", type(model).__name__)
    args = model.args
    if kind == "llama":
        windows = tuple(
            args.sliding_window if layer.use_sliding else None for layer in model.model.layers
        )
    elif kind == "gemma3_text":
        # The last of every `pattern` blocks sees everything, as in mlx-lm's gemma3_text.
        pattern = args.sliding_window_pattern
        windows = tuple(
            None if i % pattern == pattern - 1 else args.sliding_window
            for i in range(len(model.model.layers))
        )
    else:
        raise BadInput(
            f"The model class {kind!r} is not supported; supported are llama and gemma3_text."
        )

    return Stack(model, list(model.model.layers), windows, args.hidden_size, cpu_kernels)


def embed(stack: Stack, tokens: mx.array) -> mx.array:
    """Token ids (B, T) to the input of the first block (B, T, D)."""
    hidden = stack.model.model.embed_tokens(tokens)
    if stack.model.model_type == "gemma3_text":
        # mlx-lm rounds this factor to bfloat16, as in the model's training; parity needs the same.
        factor = mx.array(stack.hidden_size**0.5, mx.bfloat16)
        hidden = hidden * factor.astype(hidden.dtype)
    return hidden


def project(stack: Stack, hidden: mx.array) -> mx.array:
    """Final norm and head: (..., D) -> logits (..., V) in float32."""
    normed = final_norm(stack, hidden)
    if "lm_head" in stack.model:
        return stack.model.lm_head(normed)
    return stack.model.model.embed_tokens.as_linear(normed)


def final_norm(stack: Stack, hidden: mx.array) -> mx.array:
    """(..., D) -> (..., D), float32 for every data type of the blocks.

    A bfloat16 product would round logits of 16 and more to eighths, so that labels tie.
    """
    return stack.model.model.norm(hidden).astype(mx.float32)
