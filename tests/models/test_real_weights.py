"""The packaged SmolLM2 and Gemma weights: exact sizes, exact tokens, and a model that still knows its capitals."""

import json
from pathlib import Path

import pytest

from tasks.grids.grid import known_models
from tasks.models.convert import run_quantize
from tasks.models.sources.fetch import fetch_base
from tasks.runtime import store
from tasks.runtime.errors import SourceUnavailable
from tasks.spec import LABELS
from tests.models.stock import completed

pytestmark = pytest.mark.weights
LABEL_IDS = {"smollm2-135m": [3010, 16956, 43678], "gemma-3-270m": [2413, 23172, 30903]}
PRECISION = {"smollm2-135m": ("Q4_1", "chat"), "gemma-3-270m": ("Q4_K_M", "plain")}
# Tensors at group size 64 with bfloat16 scales: values x bits / 8, 4 bytes per 64 values, 2 bytes per norm value.
BYTES = {
    ("smollm2-135m", None): 269_030_016, ("smollm2-135m", 4): 75_715_200,
    ("gemma-3-270m", None): 536_196_352, ("gemma-3-270m", 4): 150_885_632,
}  # fmt: skip
# Gemma's packaged weights are those of the base model: asked out of the blue it goes on with "a" or "the" (in llama.cpp
# just as here), so it is given the form of the answer first.
QUESTION = {
    "smollm2-135m": "The capital of France is",
    "gemma-3-270m": "The capital of Germany is Berlin. The capital of France is",
}
# What llama.cpp's own tokenizer gives for the same GGUF files.
TOKENS = json.loads(Path(__file__).with_name("tokens.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["smollm2-135m", pytest.param("gemma-3-270m", marks=pytest.mark.nightly)])
def real(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    spec = known_models()[request.param]
    packaged = spec.model_copy(update={"sources": tuple(s for s in spec.sources if s.kind == "package")})
    try:
        return request.param, fetch_base(packaged, root), root
    except SourceUnavailable as error:
        if not error.transient:
            raise
        pytest.skip(str(error))


def stored_variant(real, bits: int | None) -> dict:
    _, source, root = real
    args = {"source": str(source), "root": str(root)}
    return run_quantize(args | {"bits": bits, "group_size": 64}) if bits else run_quantize(args)


def test_stored_bytes_are_exact(real):
    for bits in (None, 4):
        outcome = stored_variant(real, bits)
        assert outcome["stored_bytes"] == BYTES[real[0], bits]
        assert (outcome["original_precision"], outcome["prompt"]) == PRECISION[real[0]]
        assert outcome["random_weights"] is False


def test_the_capital_of_france_is_paris(real):
    folder = stored_variant(real, 4)["folder"]
    tokens = {"smollm2-135m": 1, "gemma-3-270m": 4}[real[0]]
    assert "Paris" in completed(folder, QUESTION[real[0]], tokens)


def test_tokens_are_those_of_llama_cpp_and_texts_come_back(real):
    from mlx_lm.utils import load_tokenizer

    tokenizer = load_tokenizer(Path(stored_variant(real, None)["folder"]))
    assert [tokenizer.encode(label, add_special_tokens=False) for label in LABELS] == [[i] for i in LABEL_IDS[real[0]]]

    for text, expected in TOKENS[real[0]].items():
        ids = tokenizer.encode(text)
        assert ids == expected
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        pieces = [tokenizer.decode([i]) for i in ids]
        assert all(len(p.strip()) == 1 for p in pieces if any(c.isdigit() for c in p)), pieces

    # Control tokens are single ids.
    words = {"smollm2-135m": {"<|im_start|>": 1, "<|im_end|>": 2}, "gemma-3-270m": {"<bos>": 2, "<start_of_turn>": 105}}
    for word, number in words[real[0]].items():
        assert tokenizer.encode(word, add_special_tokens=False) == [number]
    assert (tokenizer.encode("ED")[0] == tokenizer.bos_token_id) is (real[0] == "gemma-3-270m")


def test_the_licence_that_comes_with_the_weights_is_kept(real):
    manifest = store.verify(real[1])
    assert manifest["licence"] == known_models()[real[0]].licence
    if real[0] == "gemma-3-270m":
        assert "licences/GEMMA_TERMS.html" in manifest["files"]
