"""Converted and quantised folders hold exactly the source's values, in exactly the bytes that the formula gives; settings that do
not fit the shape of a model are refused, which is known from its sources or its stored folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks.models.convert import run_quantize
from tasks.models.gguf_file import decode, open_gguf, unpermute
from tasks.models.manifest import SourceManifest, VariantManifest, base_folder, variant_folder
from tasks.models.sizes import ModelShape, known_shape, read_shape, refuse_misfits
from tasks.models.sources import package_source
from tasks.models.sources.fetch import fetch_base, shape_from_sources
from tasks.precisions import BUILT_IN, of_bits
from tasks.runtime import store
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.spec import BaseModelSpec, Training
from tests.models import files


def fetched(root: Path, shape: str = "tiny-llama", seed: int = 0) -> Path:
    source = {"kind": "random", "shape": shape, "seed": seed}
    return fetch_base(BaseModelSpec(name=shape, licence="Apache-2.0", sources=(source,)), root)


def arguments(source: Path, root: Path, **precision) -> dict:
    """Of `run_quantize`, at 4 bits unless another precision is given; the base model has none."""
    return {"source": str(source), "root": str(root), "group_size": 64} | (precision or {"bits": 4})


def base_of(source: Path, root: Path) -> dict:
    return run_quantize({"source": str(source), "root": str(root)})


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


def bf16(values: np.ndarray) -> np.ndarray:
    """Round to the nearest bfloat16, ties to even, and widen again."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def test_the_classes_hold_what_the_manifests_say(home):
    source = fetched(home)
    manifest = SourceManifest.read(source)
    assert manifest.source.model_dump(exclude_unset=True) == store.verify(source)["source"]
    package = manifest.source.model_copy(update={"kind": "package", "sha256": "ab" * 32})
    assert manifest.model_copy(update={"source": package}).fetched_file_digest == "ab" * 32

    folder = Path(run_quantize(arguments(source, home))["folder"])
    variant = VariantManifest.read(folder)
    kept = {key: value for key, value in store.verify(folder).items() if key not in ("files", "check", "created")}
    assert kept == variant.model_dump(exclude_unset=True) and variant.source_digest == manifest.digest
    assert variant.has_chat_template and variant.random_weights and variant.fetched_file_digest is None
    assert variant.stored_bytes == sum(variant.bytes_by_part.values()) and variant.parameters > 0
    unquantised = run_quantize(arguments(source, home, precision=BUILT_IN["bf16"].model_dump()))
    assert unquantised["folder"] == base_of(source, home)["folder"] and unquantised["precision"] == "bf16"
    plain = base_of(fetched(home, "tiny-gemma3"), home)
    assert plain["prompt"] == "plain" and plain["tokenizer_digest"] != variant.tokenizer_digest


GGUF_FACTS = {
    "base_model": "own", "licence": "x", "weights_source": "x", "source": {"kind": "package"}, "format": "gguf",
    "original_precision": "Q8_0", "random_weights": False,
}  # fmt: skip


@pytest.fixture
def origin(tmp_path) -> Path:
    folder = tmp_path / "sources" / "own-000000000000"
    folder.mkdir(parents=True)
    return folder


def test_gguf_values_are_stored_rounded_once_to_bfloat16(tmp_path, origin):
    path = files.tiny_llama(origin / "model.gguf")
    store.seal(origin, GGUF_FACTS)
    folder = Path(base_of(origin, tmp_path)["folder"])
    stored = files.read_safetensors(folder / "model.safetensors")
    file = open_gguf(path)
    decoded = {t.name: decode(file, t) for t in file.reader.tensors}
    assert len(stored) == len(decoded)

    pairs = {
        "model.embed_tokens.weight": decoded["token_embd.weight"],
        "model.layers.1.mlp.down_proj.weight": decoded["blk.1.ffn_down.weight"],
        "model.layers.1.self_attn.v_proj.weight": decoded["blk.1.attn_v.weight"],
        "model.layers.1.self_attn.q_proj.weight": unpermute(decoded["blk.1.attn_q.weight"], files.HEADS),
        "model.layers.1.self_attn.k_proj.weight": unpermute(decoded["blk.1.attn_k.weight"], files.KV_HEADS),
        "model.layers.0.input_layernorm.weight": decoded["blk.0.attn_norm.weight"],
    }
    for name, values in pairs.items():
        np.testing.assert_array_equal(stored[name], bf16(values), err_msg=name)


def test_a_gguf_that_lacks_a_tensor_is_not_converted(tmp_path, origin, monkeypatch):
    shapes = files.llama_shapes()
    shapes.pop("blk.1.ffn_up.weight")
    monkeypatch.setattr(files, "llama_shapes", lambda: shapes)
    files.tiny_llama(origin / "model.gguf")
    store.seal(origin, GGUF_FACTS)

    with pytest.raises(BadInput, match="up_proj"):
        base_of(origin, tmp_path)
    assert not [p for p in (tmp_path / "models").iterdir() if p.is_dir()]


def test_a_local_folder_gives_the_weights_it_holds_and_the_single_digits_of_its_tokenizer(home, tmp_path):
    """transformers rebuilds a GPT2Tokenizer without them; the stored folder must not ask for that class."""
    from mlx_lm.utils import load_tokenizer

    base = Path(base_of(fetched(home), home)["folder"])
    own_folder = shutil.copytree(base, tmp_path / "own")
    config = json.loads((base / "tokenizer_config.json").read_text()) | {"tokenizer_class": "GPT2Tokenizer"}
    (own_folder / "tokenizer_config.json").write_text(json.dumps(config))
    spec = BaseModelSpec(name="mine", licence="x", sources=({"kind": "folder", "path": str(own_folder)},))
    conversion = base_of(fetch_base(spec, tmp_path), tmp_path)
    assert (conversion["original_precision"], conversion["weights_source"]) == ("bf16", f"folder {own_folder}")
    one, other = (files.read_safetensors(Path(p) / "model.safetensors") for p in (base, conversion["folder"]))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)

    steps = str(load_tokenizer(Path(conversion["folder"]))._tokenizer.backend_tokenizer.pre_tokenizer)
    assert "Digits(individual_digits=True)" in steps


def test_the_same_source_gives_the_same_bytes_and_every_ingredient_changes_the_folder_name(tmp_path):
    sources = [fetched(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    first, same, other = (run_quantize(arguments(source, source.parents[1]))["digest"] for source in sources)
    assert first == same != other

    source, _, other_source = sources
    variants = [(s, b, g) for s in (source, other_source) for b in (4, 8) for g in (32, 64)]
    names = {variant_folder(s, tmp_path, of_bits(b), g).name for s, b, g in variants}
    assert len(names) == 8 and all(name.startswith(("tiny-llama-4bit-", "tiny-llama-8bit-")) for name in names)
    assert base_folder(source, tmp_path) != base_folder(other_source, tmp_path)


def test_what_is_there_is_used_and_what_is_damaged_is_not_loaded_and_is_made_again(tmp_path):
    from tasks.tuning.lora import load_variant

    args = arguments(fetched(tmp_path), tmp_path)
    folder = variant_folder(Path(args["source"]), tmp_path, of_bits(4), 64)
    assert store.intact_manifest(folder) is None
    variant = run_quantize(args)
    assert variant == run_quantize(args)
    load_variant(folder, "packed")

    for damaged in (base_folder(Path(args["source"]), tmp_path), folder):
        weights = damaged / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BrokenFolder, match=r"model\.safetensors does not have the digest of its manifest"):
        load_variant(folder, "packed")

    assert run_quantize(args)["digest"] == variant["digest"], "the base was made again before it was quantised"
    load_variant(folder, "packed")


def test_a_damaged_source_is_not_converted_and_no_longer_counts_as_there(tmp_path):
    source = fetched(tmp_path)
    text = (source / "config.json").read_text()
    (source / "config.json").write_text(text.replace("128", "256"))
    with pytest.raises(BrokenFolder, match="it is fetched again when you rerun the command"):
        base_of(source, tmp_path)
    assert fetched(tmp_path) == source
    assert (source / "config.json").read_text() == text


@pytest.mark.parametrize("precision", [one for one in BUILT_IN.values() if one.is_quantised], ids=lambda one: one.name)
def test_the_cpu_computes_with_exactly_what_mlx_unpacks(home, precision):
    import mlx.core as mx

    from tasks.tuning.lora import load_variant

    folder = Path(run_quantize(arguments(fetched(home), home, precision=precision.model_dump()))["folder"])
    packed = load_variant(folder, "packed").model
    unpacked = dict(load_variant(folder, "dequantised_f32").model.named_modules())
    modules = [(name, module) for name, module in packed.named_modules() if "scales" in module]
    assert len(modules) == 1 + 4 * 7, "the embedding, and every matrix of every block"

    for name, module in modules:
        wide = [array if array is None or array.dtype == mx.uint8 else array.astype(mx.float32)
                for array in (module.scales, module.get("biases"))]  # fmt: skip
        exact = mx.dequantize(module.weight, *wide, module.group_size, module.bits, module.mode, dtype=mx.float32)
        assert unpacked[name].weight.dtype == mx.float32 and mx.array_equal(unpacked[name].weight, exact).item()


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
