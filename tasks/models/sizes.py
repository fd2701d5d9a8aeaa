"""Exact sizes of models: of stored ones from the headers of their safetensors files, of others from
their shape alone; and settings that a shape cannot have, refused before anything is fetched.

A quantised matrix (mlx.core.quantize) stores its values packed, and for each group of values in a
row what its mode needs: a bfloat16 scale and a bfloat16 bias (affine), or a scale of one byte.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.models.model_shape import ModelShape, TensorShape
from tasks.precisions import MODES, Precision
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.spec import Training

BF16_BYTES = 2
PARTS = ("embedding", "projections", "norms")


@dataclass(frozen=True)
class ModelSizes:
    """Bytes of a model's tensors by part (see PARTS), and its number of parameters.

    Scales and biases of quantised weights count as bytes, and not as parameters; file headers are
    left out.
    """

    bytes_by_part: dict[str, int]
    parameters: int

    @property
    def stored_bytes(self) -> int:
        return sum(self.bytes_by_part.values())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each parameter; 0 for a model without any."""
        return self.stored_bytes * 8 / self.parameters if self.parameters else 0.0

    def manifest_entries(self) -> dict[str, Any]:
        """The sizes as a variant's manifest holds them."""
        return {
            "stored_bytes": self.stored_bytes,
            "bytes_by_part": self.bytes_by_part,
            "parameters": self.parameters,
            "bits_per_weight": self.bits_per_weight,
        }


@dataclass(frozen=True)
class TensorHeader:
    """One stored tensor: bytes, and shape as stored (quantised weights are packed in words)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def tensor_headers(path: Path) -> Iterator[TensorHeader]:
    """Headers of one safetensors file (https://huggingface.co/docs/safetensors).

    Raises BrokenFolder if it is damaged.
    """
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            entries: dict[str, Any] = json.loads(handle.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise BrokenFolder(
            f"{path} is not a readable safetensors file ({error}); it must be rebuilt."
        ) from error

    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        start, end = entry["data_offsets"]
        yield TensorHeader(name, entry["dtype"], tuple(entry["shape"]), end - start)


def stored_sizes(folder: Path, group_size: int | None = None) -> ModelSizes:
    """Sizes of a model folder. `group_size`: quantised values that
    share a scale, None for bfloat16.

    Raises BrokenFolder if it holds quantised weights and `group_size` is None.
    """
    headers = [
        header
        for path in sorted(folder.glob("model*.safetensors"))
        for header in tensor_headers(path)
    ]
    quantised = {
        header.name.removesuffix(".scales") for header in headers if header.name.endswith(".scales")
    }

    bytes_by_part = dict.fromkeys(PARTS, 0)
    for header in headers:
        bytes_by_part[part(header.name)] += header.size

    parameters = sum(_parameters(header, quantised, group_size) for header in headers)

    return ModelSizes(bytes_by_part, parameters)


def part(name: str) -> str:
    """Which of PARTS a tensor belongs to; the head counts as embedding."""
    if "embed_tokens" in name or name.startswith("lm_head"):
        return "embedding"
    return "norms" if "norm" in name else "projections"


def _parameters(header: TensorHeader, quantised: set[str], group_size: int | None) -> int:
    """The model's parameters in one tensor; those of a quantised matrix are counted by its scales,
    of which each has `group_size`, whatever the bits of a value are.
    """
    module, _, kind = header.name.rpartition(".")
    values = math.prod(header.shape)
    if module not in quantised:
        return values

    if group_size is None:
        raise BrokenFolder(
            f"The tensor {header.name} is quantised, but the folder's manifest names no group size."
        )

    return values * group_size if kind == "scales" else 0


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


def refuse_misfits(
    model: str, shape: ModelShape, training: Training, precisions: Iterable[Precision]
) -> None:
    """Raise BadInput for a group size, blocks or modules that the model cannot have.

    A rank above the width of a matrix is allowed: it wastes memory, and trains.
    """
    for precision in precisions:
        try:
            expected_sizes(shape, precision, training.group_size)
        except BadInput as error:
            if not precision.groups_follow_the_grid:
                raise BadInput(
                    f"The precision {precision.name} does not fit {model}: {error} "
                    "Leave it out, or choose another model."
                ) from error
            raise BadInput(
                f"training.group_size = {training.group_size} does not fit {model}: {error} "
                f"{_fitting_group_sizes(shape)}"
            ) from error

    blocks = shape.num_hidden_layers
    if training.num_layers > blocks:
        raise BadInput(
            f"training.num_layers = {training.num_layers}, "
            f"but {model} has {blocks} blocks; give at most {blocks}."
        )
    try:
        lora_parameters(shape, 1, training.num_layers, training.target_modules)
    except BadInput as error:
        raise BadInput(f"The settings do not fit {model}: {error}") from error


def _fitting_group_sizes(shape: ModelShape) -> str:
    """The group sizes that divide every row, as a remedy."""
    rows = {tensor_shape[-1] for _, tensor_shape in shape.tensors() if len(tensor_shape) > 1}
    sizes = MODES["affine"].group_sizes
    fitting_sizes = [size for size in sizes if all(row % size == 0 for row in rows)]
    if not fitting_sizes:
        return "No group size divides all its rows; choose another model."
    return f"Choose {' or '.join(map(str, sorted(fitting_sizes, reverse=True)))}."
