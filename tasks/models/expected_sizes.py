"""Exact sizes that follow from a model's shape alone, before any weights are there.

Tensors are those of mlx-lm's llama and gemma3_text classes with a tied head. A quantised matrix (mlx.core.quantize,
affine mode) stores its values packed, and a bfloat16 scale and a bfloat16 bias for each `group_size` values of a row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from tasks.models.stored_sizes import PARTS, part
from tasks.runtime.errors import BadInput

BF16_BYTES = 2
Shape = tuple[int, ...]


def known_config(base_model: str) -> dict[str, Any]:
    """The true configuration of a base model, as shapes.json has it. Raises BadInput for one that is not listed."""
    shapes = _shapes()
    if base_model not in shapes:
        raise BadInput(
            f"The shape of {base_model} is not known; known are {', '.join(sorted(shapes))}."
        )
    return dict(shapes[base_model]["config"])


def is_known(base_model: str) -> bool:
    """Whether shapes.json has the shape of a base model."""
    return base_model in _shapes()


@cache
def _shapes() -> dict[str, Any]:
    return dict(json.loads((files(__package__) / "shapes.json").read_text(encoding="utf-8")))


def expected_sizes(config: dict[str, Any], bits: int | None, group_size: int) -> dict[str, Any]:
    """stored_bytes, bytes_by_part, parameters and bits_per_weight, as `sizes.stored_sizes` measures them.

    `bits` None: bfloat16. Raises BadInput where `group_size` does not divide a row.
    """
    by_part = dict.fromkeys(PARTS, 0)
    parameters = 0
    for name, shape in tensors(config):
        by_part[part(name)] += _bytes(name, shape, bits, group_size)
        parameters += math.prod(shape)
    total = sum(by_part.values())
    return {
        "stored_bytes": total, "bytes_by_part": by_part, "parameters": parameters,
        "bits_per_weight": total * 8 / parameters,
    }  # fmt: skip


def lora_parameters(
    config: dict[str, Any], rank: int, num_layers: int, target_modules: Iterable[str]
) -> int:
    """Trainable values of LoRA: rank x (inputs + outputs) for each target module of the last `num_layers` blocks.

    Raises BadInput for a module that the model does not have, or more blocks than it has.
    """
    depth, modules = config["num_hidden_layers"], dict(_matrices(config))
    if num_layers > depth:
        raise BadInput(f"training.num_layers = {num_layers}, but this model has {depth} blocks.")
    for name in target_modules:
        if name not in modules:
            raise BadInput(
                f"training.target_modules names {name!r}, which this model does not have."
            )
    return num_layers * sum(rank * sum(modules[name]) for name in target_modules)


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Name and unquantised shape (outputs, inputs) of every weight; the head is the embedding."""
    if config["model_type"] not in ("llama", "gemma3_text") or not config["tie_word_embeddings"]:
        raise BadInput(
            f"Sizes of the model class {config['model_type']!r} with an untied head are not known."
        )
    yield "model.embed_tokens.weight", (config["vocab_size"], config["hidden_size"])
    for i in range(config["num_hidden_layers"]):
        for name, shape in (*_matrices(config), *_norms(config)):
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", (config["hidden_size"],)


def _matrices(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    yield "self_attn.q_proj", (queries, hidden)
    yield "self_attn.k_proj", (keys, hidden)
    yield "self_attn.v_proj", (keys, hidden)
    yield "self_attn.o_proj", (hidden, queries)
    yield "mlp.gate_proj", (inner, hidden)
    yield "mlp.up_proj", (inner, hidden)
    yield "mlp.down_proj", (hidden, inner)


def _norms(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    names = ["input_layernorm", "post_attention_layernorm"]
    if config["model_type"] == "gemma3_text":
        names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        yield "self_attn.q_norm", (config["head_dim"],)
        yield "self_attn.k_norm", (config["head_dim"],)
    for name in names:
        yield name, (config["hidden_size"],)


def _bytes(name: str, shape: Shape, bits: int | None, group_size: int) -> int:
    count = math.prod(shape)
    if bits is None or len(shape) == 1:  # norms stay as they are
        return count * BF16_BYTES
    if shape[-1] % group_size:
        raise BadInput(
            f"{name} has rows of {shape[-1]} values, which a group size of {group_size} does not divide."
        )
    return count * bits // 8 + 2 * BF16_BYTES * (count // group_size)
