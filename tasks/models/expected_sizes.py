"""Exact sizes that follow from a model's shape alone, before any weights exist.

A quantised matrix (mlx.core.quantize) stores its values packed, and for each group of values in a
row what its mode needs: a bfloat16 scale and a bfloat16 bias (affine), or a scale of one byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from tasks.models.model_shape import ModelShape, TensorShape
from tasks.models.stored_sizes import PARTS, ModelSizes, part
from tasks.precisions import MODES, Precision
from tasks.runtime.errors import BadInput

BF16_BYTES = 2


def expected_sizes(shape: ModelShape, precision: Precision, group_size: int) -> ModelSizes:
    """The sizes that `stored_sizes` measures once the model is stored.

    `group_size`: `training.group_size` of the grid. Raises BadInput where the precision's groups do
    not divide a row.
    """
    bytes_by_part = dict.fromkeys(PARTS, 0)
    parameters = 0
    for name, tensor_shape in shape.tensors():
        bits = bits_of(precision, name, shape.num_hidden_layers)
        bytes_by_part[part(name)] += _tensor_bytes(name, tensor_shape, precision, bits, group_size)
        parameters += math.prod(tensor_shape)

    return ModelSizes(bytes_by_part, parameters)


def bits_of(precision: Precision, name: str, blocks: int) -> int | None:
    """Bits of the values of a matrix at a precision; None where it is not quantised.

    Of a mixed precision the values and down projections of some blocks have more: the first and
    last eighth of the blocks, and every third between them, as in
    mlx_lm.convert.mixed_quant_predicate_builder.
    """
    if precision.high_bits is None or not ("v_proj" in name or "down_proj" in name):
        return precision.bits

    block = int(name.split(".")[2])
    eighth = blocks // 8
    favoured = block < eighth or block >= 7 * blocks // 8 or (block - eighth) % 3 == 2
    return precision.high_bits if favoured else precision.bits


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


def _tensor_bytes(
    name: str, shape: TensorShape, precision: Precision, bits: int | None, training_group_size: int
) -> int:
    values = math.prod(shape)
    is_norm = len(shape) == 1  # norms are never quantised
    group_size = precision.group_size_in(training_group_size)
    if bits is None or group_size is None or is_norm:
        return values * BF16_BYTES

    if shape[-1] % group_size:
        raise BadInput(
            f"{name} has rows of {shape[-1]} values, "
            f"which a group size of {group_size} does not divide."
        )

    return values * bits // 8 + MODES[precision.mode].bytes_per_group * (values // group_size)
