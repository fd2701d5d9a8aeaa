"""A variant, loaded for a compute path; LoRA on its last blocks; and LoRA's dropout, which is repeatable
case by case: a mask follows from its key alone, so it does not matter when it is drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model, load_model, maybe_set_recommended_wired_limit

from tasks.runtime.backend import backend, can_wire_memory
from tasks.runtime.device import cores, keep_freed_memory
from tasks.runtime.errors import BadInput
from tasks.runtime.store import MANIFEST, verified_manifest, verify
from tasks.spec import Recipe, Training
from tasks.tuning.data import LEADING, Key
from tasks.tuning.model import Stack, head_of, take_apart

Arrays = dict[str, mx.array]
# Of a joined row (compiled.py): the key and the number of the tokens before the sequences.
Leading = tuple[Key, int]
# 16 random bits an element: half the work of 32, and a probability exact to 1e-5.
RANDOM_STEPS = 1 << 16
# Modules that the pruned last block computes at every position, not only where a row is scored.
AT_EVERY_POSITION = ("self_attn.k_proj", "self_attn.v_proj")


class KeyedDropout(nn.Module):
    """Dropout whose mask for a case follows from that case's key alone, so that the micro-batch changes
    nothing, and a dropout pass can be repeated. Off until keys are set.

    `place`: (layer, module), so that no two modules share a mask; `width`: of the inputs; `target`:
    the module's name within its block.
    """

    def __init__(self, probability: float, place: tuple[int, int], width: int, target: str) -> None:
        super().__init__()
        self.block = place[0]
        self.at_every_position = target in AT_EVERY_POSITION
        # With underscores: under another name MLX would take tuples for parameters.
        self._place = place
        self._width = width
        self._dropped_steps = round(probability * RANDOM_STEPS)
        # The last mask of the leading tokens, which all parts of an update share, and its key.
        self._last_leading: tuple[Leading, np.ndarray] | None = None
        self.set_keys(None)

    def set_keys(
        self,
        keys: Sequence[Key] | None,
        leading: Leading | None = None,
        mask: mx.array | None = None,
    ) -> None:
        """One key per sequence of the next forward pass, None for no dropout.

        `mask`: the one that these keys give, where it is drawn already.
        """
        self._keys = None if keys is None else tuple(keys)
        self._leading = leading
        self._mask = mask

    @property
    def keys_now(self) -> tuple[Sequence[Key] | None, Leading | None, mx.array | None]:
        """The arguments of the last `set_keys`."""
        return self._keys, self._leading, self._mask

    def draw(
        self, keys: Sequence[Key], positions: int, leading: Leading | None = None
    ) -> np.ndarray:
        """Whether an element stays: (sequences, positions, width), or (tokens, width) of a joined row."""
        rows = [(key, positions) for key in keys]
        if leading is not None:
            rows.insert(0, leading)

        masks = [self._mask_of(row) for row in rows]
        return np.stack(masks) if leading is None else np.concatenate(masks)

    def _mask_of(self, row: tuple[Key, int]) -> np.ndarray:
        """(tokens, width) of one row: its key and number of tokens."""
        if self._last_leading is not None and self._last_leading[0] == row:
            return self._last_leading[1]

        key, count = row
        size = count * self._width
        # Raw PCG64 output, four draws in 64 bits, is the same in every numpy.
        words = np.array((*key, *self._place), np.uint32)  # read three times as fast as a tuple
        generator = np.random.PCG64(np.random.SeedSequence(words))
        draws = generator.random_raw(math.ceil(size / 4)).astype("<u8", copy=False).view("<u2")
        mask: np.ndarray = draws[:size].reshape(count, self._width) >= self._dropped_steps
        if key[-1] == LEADING:
            self._last_leading = (row, mask)

        return mask

    def __call__(self, x: mx.array) -> mx.array:
        if self._keys is None or self._dropped_steps == 0:
            return x

        mask = self._mask
        if mask is None:
            positions = x.shape[1]
            if self._leading is not None:
                positions = (len(x) - self._leading[1]) // len(self._keys)
            mask = mx.array(self.draw(self._keys, positions, self._leading))
        # By the share that really stays: the probability is rounded to RANDOM_STEPS.
        return x * mask * (RANDOM_STEPS / (RANDOM_STEPS - self._dropped_steps))


@dataclass(frozen=True)
class Adapted:
    """A variant with LoRA on its blocks from `boundary` on; `trainable`: number of trained values."""

    stack: Stack
    dropouts: tuple[KeyedDropout, ...]
    boundary: int
    trainable: int

    def with_checkpoints(self, checkpointing: bool) -> Adapted:
        """The same model, with or without its blocks computed again in the backward pass."""
        return replace(self, stack=replace(self.stack, checkpointing=checkpointing))

    def set_dropout(
        self,
        keys: Sequence[Key] | None,
        leading: Leading | None = None,
        masks: Sequence[mx.array] = (),
    ) -> None:
        """Set the keys of every dropout module, see `KeyedDropout.set_keys`."""
        for module, mask in zip_longest(self.dropouts, masks):
            module.set_keys(keys, leading if self.is_everywhere(module) else None, mask)

    def draw_masks(
        self, keys: Sequence[Key], positions: int, scored: int, leading: Leading | None = None
    ) -> list[mx.array]:
        """The masks of every module for sequences of so many positions of their own and so many scored."""

        def draw(module: KeyedDropout) -> np.ndarray:
            if self.is_everywhere(module):
                return module.draw(keys, positions, leading)
            # In the pruned last block most modules see the scored rows alone.
            return module.draw(keys, scored)

        return [mx.array(mask) for mask in _drawing_threads().map(draw, self.dropouts)]

    def is_everywhere(self, module: KeyedDropout) -> bool:
        """Whether a module is computed at every position, not only where a row is scored."""
        return module.block < self.stack.depth - 1 or module.at_every_position


@cache
def _drawing_threads() -> ThreadPoolExecutor:
    """numpy draws without the GIL, and one thread is slower than a large GPU."""
    return ThreadPoolExecutor(min(4, cores()))


def add_lora(stack: Stack, recipe: Recipe, training: Training, seed: int) -> Adapted:
    """Freeze the variant and put fresh LoRA on the target modules of its last `num_layers` blocks.

    Raises BadInput if there are fewer blocks, or a target module does not exist.
    """
    if training.num_layers > stack.depth:
        raise BadInput(
            f"training.num_layers = {training.num_layers}, but this model has {stack.depth} blocks."
        )
    names = {name for name, _ in stack.layers[-1].named_modules()}
    for target in training.target_modules:
        if target not in names:
            raise BadInput(
                f"training.target_modules names {target!r}, which this model does not have."
            )

    # Decides the factors A, which are drawn as LoRA is put on; the factors B are 0.
    mx.random.seed(seed)
    # Before LoRA is put on, whose tensors must stay trainable.
    stack.model.freeze()
    linear_to_lora_layers(stack.model, training.num_layers, _lora_parameters(recipe, training))

    boundary = stack.depth - training.num_layers
    dropouts = []
    for i in range(boundary, stack.depth):
        modules = dict(stack.layers[i].named_modules())
        for j, target in enumerate(training.target_modules):
            module = modules[target]
            assert isinstance(module, LoRALinear)
            # In place of mlx-lm's, whose masks follow from no key.
            module.dropout = KeyedDropout(recipe.dropout, (i, j), module.lora_a.shape[0], target)
            dropouts.append(module.dropout)

    trainable = sum(value.size for _, value in tree_flatten(stack.model.trainable_parameters()))
    mx.eval(stack.model.trainable_parameters())

    return Adapted(stack, tuple(dropouts), boundary, trainable)


def _lora_parameters(recipe: Recipe, training: Training) -> dict[str, object]:
    """The parameters of LoRA by mlx-lm's names."""
    return {
        "rank": recipe.rank,
        "scale": recipe.scale,
        "dropout": recipe.dropout,
        "keys": list(training.target_modules),
    }


def adapter_weights(adapted: Adapted) -> Arrays:
    """The LoRA tensors by the names that stock mlx-lm gives them."""
    return dict(tree_flatten(adapted.stack.model.trainable_parameters()))


def load_weights(adapted: Adapted, path: Path) -> None:
    """Load LoRA tensors from a safetensors file; names and shapes must match."""
    loaded: Arrays = mx.load(str(path))  # type: ignore[assignment]
    # `load_weights` compares neither unless it is strict, and then it wants the frozen weights too.
    expected_shapes = {name: value.shape for name, value in adapter_weights(adapted).items()}
    if {name: value.shape for name, value in loaded.items()} != expected_shapes:
        raise BadInput(
            f"{path} does not hold the LoRA tensors of this recipe; delete it and train again."
        )

    adapted.stack.model.load_weights(list(loaded.items()), strict=False)
    mx.eval(adapted.stack.model.trainable_parameters())


def adapter_config(recipe: Recipe, training: Training, model: str) -> str:
    """`adapter_config.json` as stock mlx-lm reads it, with PEFT's alpha beside mlx-lm's scale."""
    config = {
        "fine_tune_type": "lora",
        "model": model,
        "num_layers": training.num_layers,
        "peft_alpha": recipe.peft_alpha,
        "lora_parameters": _lora_parameters(recipe, training),
    }
    return json.dumps(config, indent=1)


def load_variant(folder: Path, compute_path: str) -> Stack:
    """Load a variant folder for a compute path; BrokenFolder where its files are not its manifest's."""
    if (folder / MANIFEST).exists() and verified_manifest(folder) is None:
        verify(folder)  # which names the file

    keep_freed_memory()
    if can_wire_memory():
        # As stock mlx-lm's own training does.
        maybe_set_recommended_wired_limit()

    model, _ = load_model(folder, lazy=False)
    return as_computed(model, compute_path)


def as_computed(model: nn.Module, compute_path: str) -> Stack:
    """A quantised model on a compute path: `packed`, or unpacked to float32 (`dequantised_f32`)."""
    dense = compute_path == "dequantised_f32"
    if dense:
        # With float32 scales unpacking is exact, and equals the packed layer to the last rounding.
        model.set_dtype(mx.float32)
        model = dequantize_model(model)
        model.set_dtype(mx.float32)  # modes with scales of a byte are unpacked to bfloat16, exactly
    elif "scales" not in (head := head_of(model)):
        # Logits are in float32, and each step would cast the whole matrix.
        head.weight = head.weight.astype(mx.float32)

    model.eval()
    mx.eval(model.parameters())
    # A model is unpacked on a GPU too, for fidelity.
    return take_apart(model, cpu_kernels=dense and backend().cpu_kernels)
