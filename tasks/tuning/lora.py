"""LoRA on the last blocks of a variant: adapters put on, read and written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from tasks.runtime.errors import BadInput
from tasks.spec import Recipe, Training
from tasks.tuning.architecture import Stack
from tasks.tuning.dropout_masks import DRAW_NOW, Key, Leading, MaskSource
from tasks.tuning.keyed_dropout import KeyedDropout


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


def add_lora(stack: Stack, recipe: Recipe, training: Training, seed: int) -> Adapted:
    """Freeze the variant and put fresh LoRA modules on the target modules of its last `num_layers`
    blocks.

    Raises BadInput if there are fewer blocks, or a target module does not exist.
    """
    _refuse_missing_modules(stack, training)
    # Decides the factors A, which are drawn as LoRA is put on; the factors B are 0.
    mx.random.seed(seed)
    # Before LoRA is put on, whose tensors must stay trainable.
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
    # `load_weights` compares neither names nor shapes unless it is strict, and then it wants the
    # frozen weights too.
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
