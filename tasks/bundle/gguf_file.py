"""Writes a model of the llama architecture as one GGUF file in float16, for llama.cpp and the like.

Names and order of the tensors are mlx-lm's; the rest is written by llama.cpp's own library, since
mlx-lm's writer calls every tokenizer SentencePiece, with which SmolLM2's words fall apart. What was
written is read again and compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.gguf import permute_weights, translate_weight_names
from tokenizers import Tokenizer

from tasks.models.gguf_reader import open_gguf
from tasks.models.gguf_tokenizer import CONTROL, NORMAL, USER_DEFINED, write_tokenizer
from tasks.models.gguf_weights import hf_tensors
from tasks.runtime.errors import BadInput
from tasks.tuning.architecture import Stack

ARCHITECTURE = "llama"
TOKENIZER = ("gpt2", "smollm")  # byte-level BPE that splits digits singly
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unk", "pad_token": "pad"}


def refuse_other_models(model_type: str) -> None:
    """Raise BadInput for an architecture that mlx-lm cannot write as GGUF."""
    if model_type != ARCHITECTURE:
        raise BadInput(
            f"mlx-lm writes no GGUF file of the architecture {model_type}, which Gemma has; export "
            "it without --gguf."
        )


def write_gguf(stack: Stack, folder: Path, path: Path, texts: list[str]) -> None:
    """Write `path` from a model in float32 and the config and tokenizer of its folder.

    Raises BadInput unless the tokenizer, read from the file again, splits `texts` as before.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    _add_shape(writer, config)
    _add_tokenizer(writer, folder)

    for name, weight in tree_flatten(stack.model.parameters()):
        writer.add_tensor(translate_weight_names(name), _stored(name, weight, config))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _refuse_another_tokenizer(folder, path, texts)


def load_gguf(stack: Stack, path: Path) -> None:
    """Put the weights of a GGUF file into a model of the same shape, in float32."""
    weights = [(name, mx.array(values)) for name, values in hf_tensors(open_gguf(path))]
    stack.model.load_weights(weights, strict=True)
    mx.eval(stack.model.parameters())


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_vocab_size(config["vocab_size"])


def _stored(name: str, weight: mx.array, config: dict[str, Any]) -> np.ndarray[Any, Any]:
    """A weight as the file holds it: matrices in float16, rows of Q and K in llama.cpp's order."""
    heads = config["num_attention_heads"]
    if "self_attn.q_proj" in name:
        weight = permute_weights(weight, heads, heads)
    elif "self_attn.k_proj" in name:
        weight = permute_weights(weight, heads, config.get("num_key_value_heads", heads))
    return np.array(weight.astype(mx.float16 if weight.ndim > 1 else mx.float32))


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens, types = _tokens(tokenizer, _vocabulary_size(folder))

    kind, pre = TOKENIZER
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = tokenizer["model"].get("merges", [])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])

    for key, name in SPECIAL.items():
        if (token := _content(settings.get(key))) in tokens:
            getattr(writer, f"add_{name}_token_id")(tokens.index(token))

    writer.add_add_bos_token(False)
    if template := _chat_template(folder, settings):
        writer.add_chat_template(template)


def _vocabulary_size(folder: Path) -> int:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config["vocab_size"])


def _tokens(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Tokens by number, as many as the embedding has rows, and their types."""
    numbered = {number: token for token, number in tokenizer["model"].get("vocab", {}).items()}
    added_tokens = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    numbered |= {number: entry["content"] for number, entry in added_tokens.items()}
    tokens = [numbered.get(number, f"<|unused{number}|>") for number in range(size)]

    def kind(number: int) -> int:
        if number not in numbered:
            return CONTROL
        if number not in added_tokens:
            return NORMAL
        return CONTROL if added_tokens[number]["special"] else USER_DEFINED

    return tokens, [kind(number) for number in range(size)]


def _content(token: str | dict[str, Any] | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    return template if isinstance(template, str) else None


def _refuse_another_tokenizer(folder: Path, path: Path, texts: list[str]) -> None:
    own_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with TemporaryDirectory() as scratch:
        write_tokenizer(open_gguf(path), Path(scratch))
        read = Tokenizer.from_file(str(Path(scratch) / "tokenizer.json"))

    if any(own_tokenizer.encode(text).ids != read.encode(text).ids for text in texts):
        raise BadInput(
            "The tokenizer of this model cannot be written to GGUF: read again, it splits texts "
            "another way; export it without --gguf."
        )
