"""The shape of a model, and its exact size: of stored ones from the headers of their safetensors
files, of others from their shape alone; and settings that a shape cannot have, refused before
anything is fetched.

A shape comes from a config.json or from shapes.json; names and shapes of tensors are those of
mlx-lm's llama and gemma3_text classes. A quantised matrix (mlx.core.quantize) stores its values
packed, and for each group of values in a row what its mode needs: a bfloat16 scale and a bfloat16
bias (affine), or a scale of one byte.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from tasks.precisions import MODES, Precision
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.spec import Training

TensorShape = tuple[int, ...]
BF16_BYTES = 2
PARTS = ("embedding", "projections", "norms")


class ModelShape(BaseModel):
    """The keys of a config.json that decide which tensors a model has, and how large they are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool = True

    @model_validator(mode="before")
    @classmethod
    def _fill_optional_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Llama configs may leave out key heads and head size, which follow from other keys."""
        heads = config.get("num_attention_heads")
        width = config.get("hidden_size")
        if config.get("model_type") != "llama" or not heads or not width:
            return config
        defaults = {"num_key_value_heads": heads, "head_dim": width // heads}
        return defaults | {key: value for key, value in config.items() if value is not None}

    def tensors(self) -> Iterator[tuple[str, TensorShape]]:
        """Name and unquantised shape (outputs, inputs) of every weight; a tied head is the embedding.

        Raises BadInput for other model classes.
        """
        if self.model_type not in ("llama", "gemma3_text"):
            raise BadInput(f"Sizes of the model class {self.model_type!r} are not known.")

        norms = ["input_layernorm", "post_attention_layernorm"]
        if self.model_type == "gemma3_text":
            norms += ["self_attn.q_norm", "self_attn.k_norm"]
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]

        yield "model.embed_tokens.weight", (self.vocab_size, self.hidden_size)
        for block in range(self.num_hidden_layers):
            for name, shape in self.matrices():
                yield f"model.layers.{block}.{name}.weight", shape
            for name in norms:
                size = self.head_dim if name.startswith("self_attn") else self.hidden_size
                yield f"model.layers.{block}.{name}.weight", (size,)

        yield "model.norm.weight", (self.hidden_size,)
        if not self.tie_word_embeddings:
            yield "lm_head.weight", (self.vocab_size, self.hidden_size)

    def matrices(self) -> Iterator[tuple[str, TensorShape]]:
        """Name and shape (outputs, inputs) of every matrix of one block."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim

        yield "self_attn.q_proj", (queries, self.hidden_size)
        yield "self_attn.k_proj", (keys, self.hidden_size)
        yield "self_attn.v_proj", (keys, self.hidden_size)
        yield "self_attn.o_proj", (self.hidden_size, queries)
        yield "mlp.gate_proj", (self.intermediate_size, self.hidden_size)
        yield "mlp.up_proj", (self.intermediate_size, self.hidden_size)
        yield "mlp.down_proj", (self.hidden_size, self.intermediate_size)


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    text = (files(__package__) / "shapes.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def is_known(base_model: str) -> bool:
    """Whether shapes.json has the shape of a base model."""
    return base_model in _shapes()


def known_shape(base_model: str) -> ModelShape:
    """The shape of a base model as shapes.json has it."""
    return ModelShape.model_validate(shape_entry(base_model)["config"])


def shape_entry(name: str) -> dict[str, Any]:
    """An entry of shapes.json: `config`, a model's config.json, and `tokenizer`.

    Raises BadInput for an unknown name.
    """
    shapes = _shapes()
    if name not in shapes:
        raise BadInput(
            f"There is no shape {name!r} for random weights; known are {', '.join(sorted(shapes))}."
        )
    return shapes[name]


def read_shape(folder: Path) -> ModelShape | None:
    """The shape of a model folder by its config.json; None if that lacks a key or is missing."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return ModelShape.model_validate(config)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class ModelSizes:
    """Bytes of a model's tensors by part (see PARTS), and its number of parameters. Scales and biases
    of quantised weights count as bytes, and not as parameters.
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


def tensor_headers(path: Path) -> dict[str, Any]:
    """`dtype`, `shape` as stored (quantised weights are packed in words) and `data_offsets` of each
    tensor of a safetensors file (https://huggingface.co/docs/safetensors), by its name.

    Raises BrokenFolder if it is damaged.
    """
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            headers: dict[str, Any] = json.loads(handle.read(min(length, path.stat().st_size)))
    except (OSError, ValueError, struct.error) as error:
        raise BrokenFolder(
            f"{path} is not a readable safetensors file ({error}); it must be rebuilt."
        ) from error

    headers.pop("__metadata__", None)
    return headers


def stored_sizes(folder: Path, group_size: int | None = None) -> ModelSizes:
    """Sizes of a model folder. `group_size`: quantised values that share a scale; None for bfloat16.

    Raises BrokenFolder if it holds quantised weights and `group_size` is None.
    """
    headers: dict[str, Any] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        headers |= tensor_headers(path)

    bytes_by_part = dict.fromkeys(PARTS, 0)
    parameters = 0
    for name, header in headers.items():
        start, end = header["data_offsets"]
        bytes_by_part[part(name)] += end - start

        values = math.prod(header["shape"])
        module, _, kind = name.rpartition(".")
        if f"{module}.scales" not in headers:
            parameters += values
        elif group_size is None:
            raise BrokenFolder(
                f"The tensor {name} is quantised, but the folder's manifest names no group size."
            )
        elif kind == "scales":
            # Each counts for the values that share it, whatever the bits of a value are.
            parameters += values * group_size

    return ModelSizes(bytes_by_part, parameters)


def part(name: str) -> str:
    """Which of PARTS a tensor is of; the head counts as embedding."""
    if "embed_tokens" in name or name.startswith("lm_head"):
        return "embedding"
    return "norms" if "norm" in name else "projections"


def expected_sizes(shape: ModelShape, precision: Precision, training_group_size: int) -> ModelSizes:
    """The sizes that `stored_sizes` measures once the model is stored.

    `training_group_size`: `training.group_size` of the grid. Raises BadInput where the precision's
    groups do not divide a row.
    """
    group_size = precision.group_size_in(training_group_size)
    bytes_by_part = dict.fromkeys(PARTS, 0)
    parameters = 0
    for name, tensor_shape in shape.tensors():
        values = math.prod(tensor_shape)
        parameters += values
        bits = bits_of(precision, name, shape.num_hidden_layers)
        is_norm = len(tensor_shape) == 1  # norms are never quantised
        if bits is None or group_size is None or is_norm:
            size = values * BF16_BYTES
        elif tensor_shape[-1] % group_size:
            raise BadInput(
                f"{name} has rows of {tensor_shape[-1]} values, "
                f"which a group size of {group_size} does not divide."
            )
        else:
            groups = values // group_size
            size = values * bits // 8 + MODES[precision.mode].bytes_per_group * groups
        bytes_by_part[part(name)] += size

    return ModelSizes(bytes_by_part, parameters)


def bits_of(precision: Precision, name: str, blocks: int) -> int | None:
    """Bits of the values of a matrix at a precision; None where it is not quantised.

    A mixed precision favours an untied head, and the values and down projections of the first and
    last eighth of the blocks and of every third between them, as
    mlx_lm.convert.mixed_quant_predicate_builder does.
    """
    if precision.high_bits is None:
        return precision.bits
    if name.startswith("lm_head"):
        return precision.high_bits
    if not ("v_proj" in name or "down_proj" in name):
        return precision.bits

    block = int(name.split(".")[2])
    eighth = blocks // 8
    favoured = block < eighth or block >= 7 * blocks // 8 or (block - eighth) % 3 == 2
    return precision.high_bits if favoured else precision.bits


def lora_parameters(
    shape: ModelShape, rank: int, num_layers: int, target_modules: Iterable[str]
) -> int:
    """Trainable values of LoRA: rank x (inputs + outputs) per target module of the last blocks.

    Raises BadInput for a module that the model does not have.
    """
    modules = dict(shape.matrices())
    if unknown := [name for name in target_modules if name not in modules]:
        raise BadInput(
            f"training.target_modules names {unknown[0]!r}, which this model does not have; it has "
            f"{', '.join(modules)}."
        )

    return num_layers * sum(rank * sum(modules[name]) for name in target_modules)


def refuse_misfits(
    model: str, shape: ModelShape, training: Training, precisions: Iterable[Precision]
) -> None:
    """Raise BadInput for a group size, blocks or modules that the model cannot have."""
    for precision in precisions:
        try:
            expected_sizes(shape, precision, training.group_size)
        except BadInput as error:
            setting, remedy = f"The precision {precision.name}", "Leave it out."
            if precision.groups_follow_the_grid:
                rows = [size[-1] for _, size in shape.tensors() if len(size) > 1]
                sizes = [
                    str(size)
                    for size in sorted(MODES["affine"].group_sizes, reverse=True)
                    if all(row % size == 0 for row in rows)
                ]
                setting = f"training.group_size = {training.group_size}"
                remedy = f"Choose {' or '.join(sizes) or 'another model'}."
            raise BadInput(f"{setting} does not fit {model}: {error} {remedy}") from error

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
