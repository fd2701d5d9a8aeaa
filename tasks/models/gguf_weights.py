"""The tensors of a GGUF file, exactly: Hugging Face names and float32 values.

Unknown names and types are refused. `mlx.core.load` is never used on GGUF, since it silently decodes
some types wrong; values come from `gguf.quants.dequantize` (numpy).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import gguf
import numpy as np
from numpy.typing import NDArray

from tasks.models.gguf_reader import REMEDY, Gguf
from tasks.runtime.errors import BadInput

if TYPE_CHECKING:
    from gguf import ReaderTensor

# Types whose decoding the tests compare with the block layouts of the GGML format.
TYPES = frozenset({"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K"})
_BLOCK_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)")

_LLAMA_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA3_BLOCK = {
    **_LLAMA_BLOCK,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_tensors(file: Gguf) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors by Hugging Face name, as float32 in its layout; linear weights are (out, in).

    Raises BadInput at the first tensor whose name or type is not known.
    """
    for tensor in file.reader.tensors:
        name = hf_name(file, tensor.name)
        values = decode(file, tensor)

        if file.is_llama and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = unpermute(values, file.heads if "q_proj" in name else file.kv_heads)

        if not file.is_llama and name.endswith("norm.weight"):
            # The file holds 1 + w, as Gemma applies it; Hugging Face stores w.
            values = values - np.float32(1)

        yield name, values


def hf_name(file: Gguf, name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`.

    Raises BadInput for an unknown name.
    """
    block_names = _LLAMA_BLOCK if file.is_llama else _GEMMA3_BLOCK
    stem = name.removesuffix(".weight")
    in_block = _BLOCK_TENSOR.fullmatch(stem)

    if name.endswith(".weight") and stem in _OUTER:
        return f"{_OUTER[stem]}.weight"
    if name.endswith(".weight") and in_block and in_block[2] in block_names:
        return f"model.layers.{in_block[1]}.{block_names[in_block[2]]}.weight"
    raise BadInput(
        f"{file.where}: the tensor {name!r} is not known "
        f"for {file.architecture}; the file is refused."
    )


def decode(file: Gguf, tensor: ReaderTensor) -> NDArray[np.float32]:
    """One tensor as float32, in row-major shape (rows, columns).

    Raises BadInput for a type not in TYPES.
    """
    type_name = tensor.tensor_type.name
    if type_name not in TYPES:
        raise BadInput(
            f"{file.where}: {tensor.name} has the type {type_name}, "
            f"which is not supported; {REMEDY}."
        )

    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return values.astype(np.float32, copy=False).reshape([int(n) for n in reversed(tensor.shape)])


def unpermute(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo GGUF's row order of Q and K of llama models (interleaved rotary pairs), per head.

    Inverse of `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py. (rows, columns) in and
    out.
    """
    rows, columns = weight.shape
    return (
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )
