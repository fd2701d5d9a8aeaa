"""The `config.json` of the model in a GGUF file; unknown hyper-parameters are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.models.gguf_reader import Gguf
from tasks.runtime.errors import BadInput

if TYPE_CHECKING:
    from gguf import ReaderTensor

GEMMA_27B_BLOCKS = 62
_COMMON_KEYS = frozenset(
    {
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.layer_norm_rms_epsilon",
        "attention.key_length",
        "attention.value_length",
        "rope.freq_base",
        "rope.dimension_count",
        "vocab_size",
    }
)


def hf_config(file: Gguf) -> dict[str, Any]:
    """The model's `config.json` as Hugging Face writes it.

    Raises BadInput for an unknown hyper-parameter.
    """
    _refuse_unknown_keys(file)
    shared = {
        "hidden_size": file.hyper_parameter("embedding_length"),
        "num_hidden_layers": file.hyper_parameter("block_count"),
        "intermediate_size": file.hyper_parameter("feed_forward_length"),
        "num_attention_heads": file.heads,
        "num_key_value_heads": file.kv_heads,
        "head_dim": _head_dim(file),
        "rms_norm_eps": _decimal(file.hyper_parameter("attention.layer_norm_rms_epsilon")),
        "rope_theta": _decimal(file.get(f"{file.architecture}.rope.freq_base", 10000.0)),
        "max_position_embeddings": file.hyper_parameter("context_length"),
        "vocab_size": int(_tensor(file, "token_embd.weight").shape[1]),
        "tie_word_embeddings": all(t.name != "output.weight" for t in file.reader.tensors),
        "torch_dtype": "bfloat16",
        **_token_ids(file),
    }
    return shared | (_llama_config() if file.is_llama else _gemma3_config(file))


def _llama_config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def _gemma3_config(file: Gguf) -> dict[str, Any]:
    if file.hyper_parameter("block_count") == GEMMA_27B_BLOCKS:
        raise BadInput(
            f"{file.where}: Gemma 3 27B scales its attention differently and is not supported."
        )

    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "sliding_window": file.hyper_parameter("attention.sliding_window"),
        # The file lacks the next three: llama.cpp, too, has them as constants of the architecture.
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": _head_dim(file),
    }


def _refuse_unknown_keys(file: Gguf) -> None:
    """Raise BadInput for an unknown hyper-parameter: it may change the model's results."""
    known_keys = _COMMON_KEYS if file.is_llama else _COMMON_KEYS | {"attention.sliding_window"}
    prefix = f"{file.architecture}."
    unknown = sorted(
        key
        for key in file.reader.fields
        if key.startswith(prefix) and key.removeprefix(prefix) not in known_keys
    )

    if unknown:
        raise BadInput(
            f"{file.where}: the GGUF setting {unknown[0]} "
            "is not known here, so the file is refused."
        )


def _token_ids(file: Gguf) -> dict[str, int]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {key: file.get(f"tokenizer.ggml.{name}_token_id") for key, name in names.items()}
    return {key: int(value) for key, value in ids.items() if value is not None}


def _head_dim(file: Gguf) -> int:
    default = file.hyper_parameter("embedding_length") // file.heads
    return int(file.get(f"{file.architecture}.attention.key_length", default))


def _tensor(file: Gguf, name: str) -> ReaderTensor:
    for tensor in file.reader.tensors:
        if tensor.name == name:
            return tensor
    raise BadInput(f"{file.where}: the GGUF file has no tensor {name}.")


def _decimal(value: float) -> float:
    """The short decimal that a float32 of the file stands for: 9.99999975e-06 is 1e-05."""
    return float(str(np.float32(value)))
