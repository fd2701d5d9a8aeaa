"""GGUF tensors are decoded exactly, a rebuilt tokenizer is the one that the model was trained with, and whatever we do not know
is refused."""

import json

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tasks.models.gguf_file import (
    TYPES,
    decode,
    gemma_bpe,
    hf_config,
    hf_name,
    hf_tensors,
    open_gguf,
    precision_name,
    unpermute,
    write_tokenizer,
)
from tasks.models.sources.random_source import CHAT_TEMPLATE, write_tiny_tokenizer
from tasks.runtime.errors import BadInput
from tests.models import files

# Of each type, over six random blocks: the sum of the values times their place modulo 17. An independent decoder that
# follows the block layouts of ggml (ggml-common.h, ggml-quants.c) gave the same values, one by one.
SUMS = {"Q4_0": 7.413353, "Q4_1": -276.888214, "Q4_K": -71887.703403, "Q5_0": 39.938835, "Q6_K": 26633.994232,
        "Q8_0": 300.134796}  # fmt: skip


def test_every_quantised_type_decodes_as_its_block_layout_says(tmp_path):
    assert set(SUMS) | {"F32", "F16", "BF16"} == TYPES
    for kind, expected in SUMS.items():
        blocks = files.random_blocks(kind, 6)
        file = open_gguf(files.one_tensor(tmp_path / f"{kind}.gguf", blocks.reshape(2, -1), kind))
        values = decode(file, file.reader.tensors[0])
        assert values.shape == (2, 768 if kind.endswith("K") else 96) and values.dtype == np.float32
        places = np.arange(values.size) % 17
        assert (values.ravel().astype(np.float64) * places).sum() == pytest.approx(expected, rel=1e-6), kind


def test_plain_floats_come_through_unchanged_and_bfloat16_is_widened_bit_by_bit(tmp_path):
    for dtype in (np.float32, np.float16):
        values = np.arange(-8, 8, dtype=dtype).reshape(2, 8) / 3
        file = open_gguf(files.one_tensor(tmp_path / "t.gguf", values))
        np.testing.assert_array_equal(decode(file, file.reader.tensors[0]), values.astype(np.float32))

    values = np.array([[1.0, -2.5, 3e38, 1e-30]], np.float32).view(np.uint32) & 0xFFFF0000
    raw = (values >> 16).astype(np.uint16).view(np.uint8)
    file = open_gguf(files.one_tensor(tmp_path / "t.gguf", raw, "BF16"))
    np.testing.assert_array_equal(decode(file, file.reader.tensors[0]), values.view(np.float32))


def test_types_and_tensor_names_that_we_do_not_know_are_refused(tmp_path):
    for kind in ("Q5_K", "Q3_K", "IQ4_NL", "Q8_K"):
        _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        file = open_gguf(files.one_tensor(tmp_path / "t.gguf", np.zeros((2, size), np.uint8), kind))
        with pytest.raises(BadInput, match=f"{kind} of token_embd.weight is not supported; list another source"):
            decode(file, file.reader.tensors[0])

    for name in ("blk.0.attn_qkv.weight", "blk.0.attn_q.bias", "rope_freqs.weight", "blk.x.attn_q.weight"):
        file = open_gguf(files.one_tensor(tmp_path / "t.gguf", np.zeros((2, 8), np.float32), name=name))
        with pytest.raises(BadInput, match=f"'{name}' is not known for llama"):
            list(hf_tensors(file))


def test_a_damaged_file_and_an_architecture_that_we_do_not_know_are_sentences(tmp_path):
    path = files.one_tensor(tmp_path / "t.gguf", np.zeros((2, 8), np.float32), family="qwen3")
    with pytest.raises(BadInput, match="'qwen3' is not llama or gemma3"):
        open_gguf(path)
    for content in (b"", b"GGUF", b"not a gguf file at all, but long enough to look at"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="is not a readable GGUF file"):
            open_gguf(path)


def test_query_rows_are_put_back_in_the_order_of_hugging_face():
    original = np.arange(2 * 8 * 3, dtype=np.float32).reshape(16, 3)
    # llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute
    stored = original.reshape(2, 2, 4, 3).swapaxes(1, 2).reshape(16, 3)
    assert not np.array_equal(stored, original)
    np.testing.assert_array_equal(unpermute(stored, 2), original)


def test_config_names_the_model_as_hugging_face_does(tmp_path):
    file = open_gguf(files.tiny_llama(tmp_path / "t.gguf"))
    config = hf_config(file)
    expected = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
        "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "rms_norm_eps": 1e-05, "rope_theta": 100000.0, "vocab_size": 768, "tie_word_embeddings": True,
        "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    assert precision_name(file) == "Q8_0"


def test_gemma_norms_are_stored_without_the_one_that_the_model_adds_and_have_names_of_their_own(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "t.gguf"), "gemma3")
    for name in ("blk.3.post_ffw_norm.weight", "blk.3.attn_q_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.full(8, 1.25, np.float32))

    writer.add_tensor("blk.3.ffn_up.weight", np.full((8, 8), 1.25, np.float32))
    gemma = open_gguf(files._finish(writer, tmp_path / "t.gguf"))
    outcome = dict(hf_tensors(gemma))
    assert outcome["model.layers.3.post_feedforward_layernorm.weight"][0] == 0.25
    assert outcome["model.layers.3.self_attn.q_norm.weight"][0] == 0.25
    assert outcome["model.norm.weight"][0] == 0.25
    assert outcome["model.layers.3.mlp.up_proj.weight"][0, 0] == 1.25
    llama = open_gguf(files.one_tensor(tmp_path / "l.gguf", np.zeros((2, 8), np.float32)))
    assert hf_name(llama, "blk.0.ffn_norm.weight") == "model.layers.0.post_attention_layernorm.weight"
    assert hf_name(gemma, "blk.0.ffn_norm.weight") == "model.layers.0.pre_feedforward_layernorm.weight"


TEXTS = ["BP 98/61, SpO2 91 %", "38.5C", "Übelkeit seit 3 Tagen, 40 °C", "chest pain 😰 now", "a  b\n\n c\t1234567890"]


def test_a_rebuilt_tokenizer_cuts_as_the_original_with_its_digits_control_tokens_and_chat_template(tmp_path):
    write_tokenizer(open_gguf(files.tiny_llama(tmp_path / "t.gguf")), tmp_path)
    (tmp_path / "original").mkdir()
    write_tiny_tokenizer(tmp_path / "original", chat=True)
    original = Tokenizer.from_file(str(tmp_path / "original" / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and ids == original.encode(text).ids

    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("98/61 1234")]
    assert [p for p in pieces if any(c.isdigit() for c in p)] == list("98611234")
    assert tokenizer.encode("<|im_start|>ED<|im_end|>") == [1, *tokenizer.encode("ED"), 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)

    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"] == CHAT_TEMPLATE
    hot = [{"role": "user", "content": "hot"}]
    asked = tokenizer.apply_chat_template(hot, add_generation_prompt=True, tokenize=False)
    assert asked.endswith("<|im_start|>user\nhot<|im_end|>\n<|im_start|>assistant\n")


def test_a_sentencepiece_vocabulary_joins_pieces_in_its_own_order_and_falls_back_to_bytes():
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256)), "\n\n", "  ", "▁ab", "abc", "ab",
              "bc", "▁", "a", "b", "c"]  # fmt: skip
    types = [3] * 4 + [6] * 256 + [4] * 2 + [1] * 8
    tokenizer = gemma_bpe(tokens, types)

    def pieces(text: str) -> list[str]:
        return tokenizer.encode(text, add_special_tokens=False).tokens

    assert pieces("abc") == ["abc"]
    assert pieces(" abc") == ["▁ab", "c"], "the earlier token of the vocabulary is joined first"
    assert pieces("a  b") == ["a", "▁▁", "b"], "a run of spaces is one token"
    assert pieces("a\n\nb") == ["a", "\n\n", "b"]
    assert pieces("é") == ["<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("a  bé abc\n\n").ids) == "a  bé abc\n\n"
