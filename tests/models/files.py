"""Small GGUF files and wheels for the tests, written with the libraries that others write them with."""

import json
import struct
import zipfile
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np

from tasks.models.sources.random_source import SPECIAL, VOCABULARY, write_tiny_tokenizer

HIDDEN = 64
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 16
INNER = 128
BLOCKS = 2


def random_blocks(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """`count` quantised blocks of one type: every bit random but the float16 scales, which are kept finite."""
    generator = np.random.default_rng(seed)
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = generator.integers(0, 256, (count, size), dtype=np.uint8)

    places = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [208]}[kind]
    for place in places:
        scales = generator.uniform(-0.1, 0.1, count).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(count, 2)

    return blocks


def one_tensor(
    path: Path, data: np.ndarray, kind: str | None = None, name: str = "token_embd.weight", family: str = "llama"
) -> Path:
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind] if kind else None)
    return _finish(writer, path)


def with_type(content: bytes, name: str, number: int) -> bytes:
    """A GGUF file whose tensor `name` has another type number; its place follows the name and the dimensions."""
    place = content.index(name.encode()) + len(name)
    (dimensions,) = struct.unpack_from("<I", content, place)
    place += 4 + 8 * dimensions
    return content[:place] + struct.pack("<I", number) + content[place + 4 :]


def tiny_llama(path: Path, seed: int = 0, extra: dict | None = None, **tensors: np.ndarray) -> Path:
    """A whole llama model with its tokenizer, as llama.cpp writes it: Q8_0 matrices, float32 norms."""
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)

    for key, value in (extra or {}).items():
        writer.add_uint32(key, value)

    add_tokenizer(writer, path.parent)
    for name, shape in llama_shapes().items():
        values = tensors.get(name, generator.standard_normal(shape).astype(np.float32) * 0.1)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, q8), raw_dtype=q8)

    return _finish(writer, path)


def llama_shapes() -> dict[str, tuple[int, ...]]:
    block = {
        "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (HEADS * HEAD_DIM, HIDDEN),
        "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN), "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD_DIM), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN),
        "ffn_down": (HIDDEN, INNER),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for i in range(BLOCKS):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}

    return shapes


def add_tokenizer(writer: gguf.GGUFWriter, scratch: Path) -> None:
    """The tiny chat tokenizer, spelled as llama.cpp spells SmolLM2's, padded with unused tokens to the vocabulary."""
    write_tiny_tokenizer(scratch, chat=True)
    model = json.loads((scratch / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    tokens += [f"<|unused{i}|>" for i in range(VOCABULARY - len(tokens))]
    control = set(SPECIAL.values()) | {t for t in tokens if t.startswith("<|unused")}
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in control else 1 for t in tokens])
    writer.add_token_merges(merges)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(json.loads((scratch / "tokenizer_config.json").read_text())["chat_template"])


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"

    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")

    return path


def nothing_half_made(root: Path) -> bool:
    return not [p for p in (root / "sources").rglob("*") if p.is_dir() or p.name == "model.gguf"]


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    tensors: dict[str, mx.array] = mx.load(str(path))
    return {name: np.array(tensor.astype(mx.float32)) for name, tensor in tensors.items()}


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
