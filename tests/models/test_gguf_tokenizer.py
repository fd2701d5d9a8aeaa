"""A tokenizer rebuilt from GGUF fields is the one the model was trained with."""

import json

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tasks.models.gguf_file import gemma_bpe, open_gguf, write_tokenizer
from tasks.models.sources.random_source import CHAT_TEMPLATE, write_tiny_tokenizer
from tasks.runtime.errors import BadInput
from tests.models import files

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


@pytest.mark.parametrize(("model", "pre"), [("gpt2", "qwen2"), ("llama", "default")])
def test_a_tokenizer_we_do_not_know_is_refused(tmp_path, model, pre):
    writer = gguf.GGUFWriter(str(tmp_path / "t.gguf"), "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["a"])
    writer.add_token_types([1])
    writer.add_tensor("output_norm.weight", np.zeros(8, np.float32))

    with pytest.raises(BadInput, match=f"the tokenizer {model}/{pre} is not supported"):
        write_tokenizer(open_gguf(files._finish(writer, tmp_path / "t.gguf")), tmp_path)


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
