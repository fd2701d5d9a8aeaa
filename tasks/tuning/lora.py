"""Loads a variant, puts LoRA on it, and makes LoRA dropout repeatable case by case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model, load_model, maybe_set_recommended_wired_limit

from tasks.runtime.backend import backend, can_wire_memory
from tasks.runtime.device import keep_freed_memory
from tasks.runtime.errors import BadInput
from tasks.runtime.store import MANIFEST, verify_once
from tasks.spec import Recipe, Training
from tasks.tuning.architecture import Stack, take_apart
from tasks.tuning.dropout_masks import (
    DRAW_NOW,
    RANDOM_STEPS,
    Key,
    Leading,
    MaskRequest,
    MaskSource,
)

# Modules that the pruned last block computes at every position; the
# others only where a row is scored.
AT_EVERY_POSITION = ("self_attn.k_proj", "self_attn.v_proj")


class KeyedDropout(nn.Module):
    """Dropout whose mask for a case depends on that case's key alone, never on its neighbours in
    the batch.

    So the micro-batch size changes nothing, and a dropout pass can be repeated. Off until keys are
    set. `place` is (layer, module), so that no two modules share a mask; `width` is the size of the
    inputs, and `target` the module's name within its block.
    """

    def __init__(self, probability: float, place: tuple[int, int], width: int, target: str) -> None:
        super().__init__()
        self._probability = probability
        self._place = place
        self._width = width
        self._target = target
        self._keys: list[Key] | None = None
        self._leading: Leading | None = None
        self._source: MaskSource = DRAW_NOW

    def set_keys(self, keys: list[Key] | None, leading: Leading | None = None) -> None:
        """One key (a tuple of integers) per sequence of the next forward pass.

        None switches dropout off. `leading`: the inputs are one joined row (joined.py), in which
        the sequences follow so many leading tokens with a key of their own.
        """
        self._keys = keys
        self._leading = leading

    def take_from(self, source: MaskSource) -> None:
        """Set where masks are taken."""
        self._source = source

    @property
    def source(self) -> MaskSource:
        """Where masks are taken."""
        return self._source

    @property
    def keys_now(self) -> tuple[list[Key] | None, Leading | None]:
        """The arguments of the last `set_keys`."""
        return self._keys, self._leading

    @property
    def block(self) -> int:
        """The block that the module is in."""
        return self._place[0]

    @property
    def at_every_position(self) -> bool:
        """Whether the module is computed for every position, in the last block too."""
        return self._target in AT_EVERY_POSITION

    def request(
        self, keys: Sequence[Key], positions: int, leading: Leading | None = None
    ) -> MaskRequest:
        """The masks of a forward pass over sequences of `positions` positions."""
        drop = round(self._probability * RANDOM_STEPS)
        return MaskRequest(tuple(keys), self._place, (positions, self._width), drop, leading)

    def __call__(self, x: mx.array) -> mx.array:
        if self._probability == 0 or self._keys is None:
            return x

        request = self._request_for(x, self._keys)
        mask = self._source.take(request)
        return x * mask * (RANDOM_STEPS / (RANDOM_STEPS - request.drop))

    def _request_for(self, x: mx.array, keys: list[Key]) -> MaskRequest:
        if self._leading is None:
            return self.request(keys, x.shape[1])
        return self.request(keys, (len(x) - self._leading[1]) // len(keys), self._leading)


@dataclass(frozen=True)
class Adapted:
    """A variant with LoRA on its last blocks, ready to train or to score.

    `boundary`: index of the first block that has LoRA; everything before it never changes.
    `trainable`: number of trained values.
    """

    stack: Stack
    dropouts: tuple[KeyedDropout, ...]
    boundary: int
    trainable: int

    def set_dropout(self, keys: list[Key] | None, leading: Leading | None = None) -> None:
        """Set the keys of every dropout module, see `KeyedDropout.set_keys`."""
        for module in self.dropouts:
            module.set_keys(keys, leading if self.is_everywhere(module) else None)

    def is_everywhere(self, module: KeyedDropout) -> bool:
        """Whether a module is computed at every position, not only where a row is scored."""
        return module.block < self.stack.depth - 1 or module.at_every_position

    @property
    def mask_source(self) -> MaskSource:
        """Where the dropout modules take their masks."""
        return self.dropouts[0].source if self.dropouts else DRAW_NOW

    def take_masks_from(self, source: MaskSource) -> None:
        """Set where every dropout module takes its masks."""
        for module in self.dropouts:
            module.take_from(source)


def load_variant(folder: Path, compute_path: str) -> Stack:
    """Load a variant folder for a compute path, see `as_computed`.

    Raises BrokenFolder where its files are not those of its manifest.
    """
    if (folder / MANIFEST).exists():
        verify_once(folder)

    keep_freed_memory()
    if can_wire_memory():
        # As stock mlx-lm's own training does.
        maybe_set_recommended_wired_limit()

    model, _ = load_model(folder, lazy=False)
    return as_computed(model, compute_path)


def as_computed(model: nn.Module, compute_path: str) -> Stack:
    """A quantised model on a compute path. `dequantised_f32` unpacks the same weights to float32.

    `packed` keeps them as stored; `packed_where_fast` unpacks those without a fast kernel, in the
    data type that they are stored for.
    """
    dense = compute_path == "dequantised_f32"
    if dense:
        # With float32 scales unpacking is exact, and equals the packed layer to the last rounding.
        model.set_dtype(mx.float32)
        model = dequantize_model(model)
        model.set_dtype(mx.float32)  # modes with scales of a byte are unpacked to bfloat16, exactly

    elif compute_path == "packed_where_fast":
        _unpack_slow(model, backend().fast_outputs)

    model.eval()
    mx.eval(model.parameters())
    # A model is unpacked on a GPU too, for fidelity.
    return take_apart(model, cpu_kernels=dense and backend().cpu_kernels)


def _unpack_slow(model: nn.Module, multiple: int) -> None:
    """Unpack the matrices whose number of outputs is no multiple of `multiple`."""
    slow = [
        (name, unpacked(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.QuantizedLinear) and module.weight.shape[0] % multiple
    ]
    model.update_modules(tree_unflatten(slow))


def unpacked(module: nn.QuantizedLinear) -> nn.Linear:
    """The same matrix unpacked, in the data type of its scales."""
    weight = mx.dequantize(
        module.weight,
        module.scales,
        module.get("biases"),
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    )
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in module)
    linear.weight = weight
    if "bias" in module:
        linear.bias = module.bias

    return linear


def add_lora(stack: Stack, recipe: Recipe, training: Training, seed: int) -> Adapted:
    """Freeze the variant and put fresh LoRA modules on the target modules of its last `num_layers`
    blocks.

    Raises BadInput if there are fewer blocks, or a target module does not exist.
    """
    _refuse_missing_modules(stack, training)
    mx.random.seed(seed)
    stack.model.freeze()
    linear_to_lora_layers(stack.model, training.num_layers, _lora_parameters(recipe, training))

    boundary = stack.depth - training.num_layers
    dropouts = [
        _key_dropout(_module(stack.layers[i], target), recipe.dropout, (i, j), target)
        for i in range(boundary, stack.depth)
        for j, target in enumerate(training.target_modules)
    ]
    trainable = sum(value.size for _, value in tree_flatten(stack.model.trainable_parameters()))
    mx.eval(stack.model.trainable_parameters())

    return Adapted(stack, tuple(dropouts), boundary, trainable)


def _refuse_missing_modules(stack: Stack, training: Training) -> None:
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


def _lora_parameters(recipe: Recipe, training: Training) -> dict[str, object]:
    """The parameters of LoRA by mlx-lm's names."""
    return {
        "rank": recipe.rank,
        "scale": recipe.scale,
        "dropout": recipe.dropout,
        "keys": list(training.target_modules),
    }


def _key_dropout(
    module: nn.Module, probability: float, place: tuple[int, int], target: str
) -> KeyedDropout:
    """Replace the dropout of a LoRA module by one with keys."""
    assert isinstance(module, LoRALinear)
    dropout = KeyedDropout(probability, place, module.lora_a.shape[0], target)
    module.dropout = dropout
    return dropout


def adapter_weights(adapted: Adapted) -> dict[str, mx.array]:
    """The LoRA tensors by the names that stock mlx-lm gives them."""
    return dict(tree_flatten(adapted.stack.model.trainable_parameters()))


def load_weights(adapted: Adapted, path: Path) -> None:
    """Load LoRA tensors from a safetensors file into an adapted model.

    Names and shapes must match.
    """
    loaded: dict[str, mx.array] = mx.load(str(path))  # type: ignore[assignment]
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


def _module(layer: nn.Module, path: str) -> Any:
    for part in path.split("."):
        layer = getattr(layer, part)
    return layer
