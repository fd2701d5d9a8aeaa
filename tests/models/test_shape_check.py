"""Settings that do not fit the shape of a model that a grid defines: known from its sources or its stored folder."""

import json
from pathlib import Path

import pytest

from tasks.models.convert import run_quantize
from tasks.models.sizes import ModelShape, known_shape, read_shape, refuse_misfits
from tasks.models.sources import package_source
from tasks.models.sources.fetch import fetch_base, shape_from_sources
from tasks.precisions import of_bits
from tasks.runtime import store
from tasks.runtime.errors import BadInput
from tasks.spec import BaseModelSpec, Training
from tests.models import files
from tests.models.test_convert import GGUF_FACTS

TINY = {"kind": "random", "shape": "tiny-llama"}
HUB = {"kind": "hub", "repo": "nobody/nothing"}
FOUR_BITS = (of_bits(4),)


def model(*sources: dict) -> BaseModelSpec:
    return BaseModelSpec(name="mine", licence="x", sources=sources)


@pytest.mark.parametrize(
    ("training", "changes", "message"),
    [
        ({"num_layers": 8}, {}, r"training\.num_layers = 8, but mine has 4 blocks; give at most 4\."),
        ({"group_size": 128}, {}, "training.group_size = 128 does not fit mine: .*Choose 64 or 32"),
        ({"target_modules": ("self_attn.q",)}, {}, "do not fit mine: .*'self_attn.q'.*it has self_attn.q_proj"),
        ({"target_modules": ("input_layernorm",)}, {}, "do not fit mine: .*'input_layernorm'"),
        ({}, {"hidden_size": 66}, "does not fit mine: .*Choose another model"),
    ],
)
def test_what_a_model_cannot_have_is_refused_with_its_name_and_a_remedy(training, changes, message):
    shape = known_shape("tiny-llama")
    refuse_misfits("mine", shape, Training(num_layers=4), FOUR_BITS)
    with pytest.raises(BadInput, match=message):
        refuse_misfits("mine", shape.model_copy(update=changes), Training(**{"num_layers": 2} | training), FOUR_BITS)


def test_the_first_source_gives_the_shape_where_it_is_random_or_a_local_folder(tmp_path):
    assert shape_from_sources(model(TINY), tmp_path) == known_shape("tiny-llama")
    assert shape_from_sources(model(HUB, TINY), tmp_path) is None, "the Hub's model may have another shape"

    folder = tmp_path / "local"
    folder.mkdir()
    local = model({"kind": "folder", "path": str(folder)})
    assert shape_from_sources(local, tmp_path) is None, "no config.json"
    config = known_shape("tiny-gemma3").model_dump()
    (folder / "config.json").write_text(json.dumps(config))
    assert shape_from_sources(local, tmp_path) == known_shape("tiny-gemma3")
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128, "num_attention_heads": 4}
    shape = ModelShape.model_validate({"model_type": "llama", "vocab_size": 768} | sizes)
    assert (shape.head_dim, shape.num_key_value_heads) == (16, 4), "a config may leave them out"


def test_the_stored_folder_decides_and_for_gguf_the_converted_one(tmp_path):
    fetch_base(model(TINY), tmp_path)
    assert shape_from_sources(model(HUB, TINY), tmp_path) == known_shape("tiny-llama")

    packaged = model({"kind": "package", "package": "w", "version": "1", "file": "w.gguf", "sha256": "0" * 64})
    source = tmp_path / "sources" / f"mine-{package_source.identity(packaged.sources[0])}"
    source.mkdir(parents=True)
    files.tiny_llama(source / "model.gguf")
    store.seal(source, GGUF_FACTS)
    assert shape_from_sources(packaged, tmp_path) is None, "a GGUF file is not opened for it"

    folder = Path(run_quantize({"source": str(source), "root": str(tmp_path)})["folder"])
    shape = shape_from_sources(packaged, tmp_path)
    assert shape is not None and shape == read_shape(folder)
