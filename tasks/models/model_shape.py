"""The shape of a model: its blocks and matrices, from a config.json or from shapes.json.

Names and shapes are those of mlx-lm's llama and gemma3_text classes with a tied head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tasks.runtime.errors import BadInput

TensorShape = tuple[int, ...]


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
        if config.get("model_type") != "llama":
            return config

        heads = config.get("num_attention_heads")
        defaults = {
            "num_key_value_heads": heads,
            "head_dim": config["hidden_size"] // heads
            if heads and "hidden_size" in config
            else None,
        }
        return defaults | {key: value for key, value in config.items() if value is not None}

    @property
    def is_gemma(self) -> bool:
        return self.model_type == "gemma3_text"

    def tensors(self) -> Iterator[tuple[str, TensorShape]]:
        """Name and unquantised shape (outputs, inputs) of every weight; the head is the embedding.

        Raises BadInput for other model classes and for a head of its own.
        """
        if self.model_type not in ("llama", "gemma3_text") or not self.tie_word_embeddings:
            raise BadInput(
                f"Sizes of the model class {self.model_type!r} with an untied head are not known."
            )

        yield "model.embed_tokens.weight", (self.vocab_size, self.hidden_size)
        for block in range(self.num_hidden_layers):
            for name, shape in (*self.matrices(), *self._norms()):
                yield f"model.layers.{block}.{name}.weight", shape

        yield "model.norm.weight", (self.hidden_size,)

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

    def _norms(self) -> Iterator[tuple[str, TensorShape]]:
        names = ["input_layernorm", "post_attention_layernorm"]
        if self.is_gemma:
            names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
            yield "self_attn.q_norm", (self.head_dim,)
            yield "self_attn.k_norm", (self.head_dim,)

        for name in names:
            yield name, (self.hidden_size,)


def is_known(base_model: str) -> bool:
    """Whether shapes.json has the shape of a base model."""
    return base_model in _shapes()


def known_shape(base_model: str) -> ModelShape:
    """The shape of a base model as shapes.json has it.

    Raises BadInput for one that is not listed.
    """
    if not is_known(base_model):
        raise BadInput(
            f"The shape of {base_model} is not known; known are {', '.join(sorted(_shapes()))}."
        )
    return ModelShape.model_validate(_shapes()[base_model]["config"])


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
    """The shape of a model folder, from its config.json; None if that lacks a needed key."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return ModelShape.model_validate(config)
    except (OSError, ValueError, ValidationError):
        return None


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    text = (files(__package__) / "shapes.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
