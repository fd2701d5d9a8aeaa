"""A model in a GGUF file, exactly: its metadata, its `config.json`, its tensors with Hugging Face names
as float32, and its tokenizer. What is damaged or not known is refused.

There are two kinds of tokenizers: byte-level BPE whose pre-tokenizer splits digits singly (SmolLM2),
and SentencePiece BPE with byte fall-back (Gemma). Others are refused: a nearly right tokenizer reads
numbers wrong, and vital signs are numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from tasks.runtime.errors import BadInput

if TYPE_CHECKING:
    from gguf import ReaderTensor

REMEDY = (
    "list another source of this model, such as its Hub repository or a folder with safetensors"
)
# Types whose decoding was compared with the block layouts of the GGML format.
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
GEMMA_27B_BLOCKS = 62
_COMMON_KEYS = (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
    "attention.key_length", "attention.value_length", "rope.freq_base", "rope.dimension_count",
)  # fmt: skip


class _Reader(gguf.GGUFReader):
    """The gguf library's reader on a plain array: slices of its np.memmap, of which a vocabulary
    takes hundreds of thousands, take three times as long.
    """

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, mapped: np.ndarray) -> None:
        self._data = mapped.view(np.ndarray)


@dataclass(frozen=True)
class Gguf:
    """An opened GGUF file; sentences name it by `where`, e.g. the package that it came in."""

    where: str
    reader: gguf.GGUFReader
    architecture: str

    @property
    def is_llama(self) -> bool:
        return self.architecture == "llama"

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value, e.g. `general.name`; arrays are lists."""
        field = self.reader.fields.get(key)
        return default if field is None else field.contents()

    def need(self, key: str) -> Any:
        """A metadata value that the file must have. Raises BadInput if it has not."""
        value = self.get(key)
        if value is None:
            raise BadInput(f"{self.where}: the GGUF file lacks the field {key}; {REMEDY}.")
        return value

    def hyper_parameter(self, key: str) -> Any:
        """A hyper-parameter of the model, e.g. `block_count`. Raises BadInput without one."""
        return self.need(f"{self.architecture}.{key}")

    @property
    def heads(self) -> int:
        return int(self.hyper_parameter("attention.head_count"))

    @property
    def kv_heads(self) -> int:
        return int(self.get(f"{self.architecture}.attention.head_count_kv", self.heads))


def open_gguf(path: Path, origin: str | None = None) -> Gguf:
    """Open a GGUF file. `origin` names it in sentences, else its path does.

    Raises BadInput if the gguf library cannot read it, or if its architecture is neither llama nor
    gemma3.
    """
    file_name = origin or str(path)
    try:
        reader = _Reader(str(path))
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise BadInput(f"{file_name} is not a readable GGUF file ({error}); {REMEDY}.") from error

    field = reader.fields.get("general.architecture")
    architecture = str(field.contents()) if field else "none"
    if architecture not in ("llama", "gemma3"):
        raise BadInput(
            f"{file_name}: the GGUF architecture {architecture!r} is not llama or gemma3; {REMEDY}."
        )

    return Gguf(file_name, reader, architecture)


def precision_name(file: Gguf) -> str:
    """The precision the file was quantised to, e.g. `Q4_1` or `Q4_K_M`."""
    number = file.get("general.file_type")
    try:
        return gguf.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        types = {t.tensor_type.name for t in file.reader.tensors if len(t.shape) > 1}
        return "/".join(sorted(types))


def hf_config(file: Gguf) -> dict[str, Any]:
    """The model's `config.json` as Hugging Face writes it. Raises BadInput for an unknown
    hyper-parameter, which may change the model's results.
    """
    known_keys = _COMMON_KEYS if file.is_llama else (*_COMMON_KEYS, "attention.sliding_window")
    prefix = f"{file.architecture}."
    for key in sorted(file.reader.fields):
        if key.startswith(prefix) and key.removeprefix(prefix) not in known_keys:
            raise BadInput(f"{file.where}: the GGUF setting {key} is not known; {REMEDY}.")

    tensors = {tensor.name: tensor for tensor in file.reader.tensors}
    if "token_embd.weight" not in tensors:
        raise BadInput(f"{file.where}: the GGUF file has no tensor token_embd.weight.")

    default_dim = file.hyper_parameter("embedding_length") // file.heads
    head_dim = int(file.get(f"{file.architecture}.attention.key_length", default_dim))
    ids = special_ids(file)
    shared = {
        "hidden_size": file.hyper_parameter("embedding_length"),
        "num_hidden_layers": file.hyper_parameter("block_count"),
        "intermediate_size": file.hyper_parameter("feed_forward_length"),
        "num_attention_heads": file.heads,
        "num_key_value_heads": file.kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": _decimal(file.hyper_parameter("attention.layer_norm_rms_epsilon")),
        "rope_theta": _decimal(file.get(f"{file.architecture}.rope.freq_base", 10000.0)),
        "max_position_embeddings": file.hyper_parameter("context_length"),
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": "bfloat16",
        **{f"{key}_id": ids[key] for key in ids if key != "unk_token"},
    }
    if file.is_llama:
        return shared | {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        }

    if file.hyper_parameter("block_count") == GEMMA_27B_BLOCKS:
        raise BadInput(
            f"{file.where}: Gemma 3 27B scales its attention differently and is not supported."
        )
    return shared | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "sliding_window": file.hyper_parameter("attention.sliding_window"),
        # The file lacks the next three: llama.cpp, too, has them as constants of the architecture.
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": head_dim,
    }


def _decimal(value: float) -> float:
    """The short decimal that a float32 of the file stands for: 9.99999975e-06 is 1e-05."""
    return float(str(np.float32(value)))


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
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`. Raises BadInput for an
    unknown name.
    """
    block_names = _LLAMA_BLOCK if file.is_llama else _GEMMA3_BLOCK
    stem, _, ending = name.rpartition(".")
    in_block = _BLOCK_TENSOR.fullmatch(stem)
    if ending == "weight" and stem in _OUTER:
        return f"{_OUTER[stem]}.weight"
    if ending == "weight" and in_block and in_block[2] in block_names:
        return f"model.layers.{in_block[1]}.{block_names[in_block[2]]}.weight"
    raise BadInput(
        f"{file.where}: the tensor {name!r} is not known for {file.architecture}; {REMEDY}."
    )


def decode(file: Gguf, tensor: ReaderTensor) -> NDArray[np.float32]:
    """One tensor as float32, in row-major shape (rows, columns).

    Raises BadInput for a type not in TYPES.
    """
    type_name = tensor.tensor_type.name
    if type_name not in TYPES:
        raise BadInput(
            f"{file.where}: the type {type_name} of {tensor.name} is not supported; {REMEDY}."
        )

    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return values.astype(np.float32, copy=False).reshape([int(n) for n in reversed(tensor.shape)])


def unpermute(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo GGUF's row order of Q and K of llama models (interleaved rotary pairs), per head: the
    inverse of `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py. Shape (rows, columns).
    """
    rows, columns = weight.shape
    return (
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


# token types of the GGUF format
NORMAL = 1
CONTROL = 3
USER_DEFINED = 4
BYTE = 6
# Names of special tokens: those of transformers, and those of a GGUF file.
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
SPACE = "▁"


def special_ids(file: Gguf) -> dict[str, int]:
    """The ids of the file's special tokens, by the names of SPECIAL."""
    ids = {key: file.get(f"tokenizer.ggml.{name}_token_id") for key, name in SPECIAL.items()}
    return {key: int(number) for key, number in ids.items() if number is not None}


def write_tokenizer(file: Gguf, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`. Raises BadInput for an unknown kind."""
    tokens = [str(token) for token in file.need("tokenizer.ggml.tokens")]
    types = [int(number) for number in file.need("tokenizer.ggml.token_type")]
    if unknown := set(types) - {NORMAL, CONTROL, USER_DEFINED, BYTE}:
        raise BadInput(f"{file.where}: tokens of type {min(unknown)} are not supported; {REMEDY}.")

    kind = (file.need("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre", "default"))
    if kind == ("gpt2", "smollm"):
        merges = [str(merge).partition(" ") for merge in file.need("tokenizer.ggml.merges")]
        pairs = [(left, right) for left, _, right in merges]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
        byte_level_with_single_digits(tokenizer)
        _add_uncut_tokens(tokenizer, tokens, types)
    elif kind[0] == "llama" and file.architecture == "gemma3":
        tokenizer = gemma_bpe(tokens, types)
    else:
        raise BadInput(f"{file.where}: the tokenizer {'/'.join(kind)} is not supported; {REMEDY}.")

    ids = special_ids(file)
    special = {key: tokens[number] for key, number in ids.items()}
    if file.get("tokenizer.ggml.add_bos_token", False):
        tokenizer.post_processor = start_with(special["bos_token"], ids["bos_token"])

    save_tokenizer(tokenizer, folder, special, file.get("tokenizer.chat_template"))


def byte_level_with_single_digits(tokenizer: Tokenizer) -> None:
    """Set SmolLM2's pre-tokenizer and decoder."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()


def gemma_bpe(tokens: list[str], types: list[int]) -> Tokenizer:
    """SentencePiece BPE with byte fall-back, as in Gemma's own tokenizer.json."""
    # The file writes runs of spaces as spaces; a normalised text holds them as the marker.
    marked = [SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]
    vocabulary = {token: number for number, token in enumerate(marked)}

    # A SentencePiece vocabulary implies its merges: parts join in the vocabulary's order.
    merges: list[tuple[str, str]] = []
    for token, kind in zip(marked, types, strict=True):
        is_run_of_spaces = kind == USER_DEFINED and not token.strip(SPACE)
        if kind == NORMAL or is_run_of_spaces:
            splits = [(token[:i], token[i:]) for i in range(1, len(token))]
            pairs = [pair for pair in splits if pair[0] in vocabulary and pair[1] in vocabulary]
            merges += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))

    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            byte_fallback=True,
            fuse_unk=True,
            unk_token="<unk>",
        )
    )

    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    _add_uncut_tokens(tokenizer, marked, types)

    return tokenizer


def start_with(token: str, token_id: int) -> processors.TemplateProcessing:
    """A post-processor that puts one token (bos) before every text."""
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, token_id)]
    )


def save_tokenizer(
    tokenizer: Tokenizer, folder: Path, special: dict[str, str], chat_template: str | None
) -> None:
    """Write the two files that transformers reads. `special`: tokens by bos_token and the like."""
    tokenizer.save(str(folder / "tokenizer.json"))

    config: dict[str, str | bool] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **special,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template

    text = json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _add_uncut_tokens(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Add the tokens that are never cut: control tokens as special, user-defined ones as plain."""
    for token_type, add in (
        (CONTROL, tokenizer.add_special_tokens),
        (USER_DEFINED, tokenizer.add_tokens),
    ):
        of_type = [token for token, kind in zip(tokens, types, strict=True) if kind == token_type]
        add([AddedToken(token, normalized=False) for token in of_type])
