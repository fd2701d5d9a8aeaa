"""Exact sizes that follow from a model's shape alone, before any weights exist.

A quantised matrix (mlx.core.quantize, affine mode) stores its values packed, and a bfloat16 scale
and a bfloat16 bias for each `group_size` values of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from tasks.models.model_shape import ModelShape, TensorShape
from tasks.models.stored_sizes import PARTS, ModelSizes, part
from tasks.runtime.errors import BadInput

BF16_BYTES = 2


def expected_sizes(shape: ModelShape, bits: int | None, group_size: int) -> ModelSizes:
    """The sizes that `stored_sizes` measures once the model is stored. `bits` None: bfloat16.

    Raises BadInput where `group_size` does not divide a row.
    """
    bytes_by_part = dict.fromkeys(PARTS, 0)
    parameters = 0
    for name, tensor_shape in shape.tensors():
        bytes_by_part[part(name)] += _tensor_bytes(name, tensor_shape, bits, group_size)
        parameters += math.prod(tensor_shape)

    return ModelSizes(bytes_by_part, parameters)


def lora_parameters(
    shape: ModelShape, rank: int, num_layers: int, target_modules: Iterable[str]
) -> int:
    """Trainable values of LoRA: rank x (inputs + outputs) per target module of the last blocks.

    Raises BadInput for a module that the model does not have, or more blocks than it has.
    """
    if num_layers > shape.num_hidden_layers:
        raise BadInput(
            f"training.num_layers = {num_layers}, but this model has "
            f"{shape.num_hidden_layers} blocks; set it to {shape.num_hidden_layers} or less."
        )

    modules = dict(shape.matrices())
    for name in target_modules:
        if name not in modules:
            raise BadInput(
                f"training.target_modules names {name!r}, which this "
                f"model does not have; it has {', '.join(modules)}."
            )
    return num_layers * sum(rank * sum(modules[name]) for name in target_modules)


def _tensor_bytes(name: str, shape: TensorShape, bits: int | None, group_size: int) -> int:
    values = math.prod(shape)
    is_norm = len(shape) == 1  # norms are never quantised
    if bits is None or is_norm:
        return values * BF16_BYTES

    if shape[-1] % group_size:
        raise BadInput(
            f"{name} has rows of {shape[-1]} values, "
            f"which a group size of {group_size} does not divide."
        )
    return values * bits // 8 + 2 * BF16_BYTES * (values // group_size)
