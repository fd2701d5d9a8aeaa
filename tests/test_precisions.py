"""Precisions are data: each row is one that MLX can make, names are looked up with the nearest one offered."""

from types import SimpleNamespace

import pytest
from mlx.utils import tree_flatten
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.models import llama

from flows.selection import Narrowing, select
from tasks.grids.grid import GRIDS, load_grid
from tasks.models.sizes import ModelShape, bits_of, expected_sizes, known_shape
from tasks.precisions import BUILT_IN, Precision, quantised_source_bits, reference_note, title_of
from tasks.runtime.errors import BadInput
from tasks.spec import ExperimentSpec

ROW = '[[precision]]\nname = "{name}"\nmode = "{mode}"\nbits = {bits}\n{more}'
SMOKE = (GRIDS / "smoke.toml").read_text()


def test_both_keys_name_the_same_cells_and_the_one_that_is_set_replaces_that_of_the_file():
    short, long = (select("smoke", [key]).cells for key in ("bits=[4, 8]", 'precisions=["4bit", "8bit"]'))
    assert short == long and ExperimentSpec.model_validate_json(short[0].model_dump_json()) == short[0]
    grid = load_grid("smoke", ['precisions=["bf16", "mxfp4"]'])
    assert grid.bits is None and [one.name for one in grid.compared] == ["bf16", "mxfp4"]


def test_each_built_in_name_is_made_in_this_mode_of_mlx():
    assert {name: (one.mode, one.bits, one.high_bits, one.group_size_in(64)) for name, one in BUILT_IN.items()} == {
        "bf16": ("unquantised", None, None, None),
        **{f"{bits}bit": ("affine", bits, None, 64) for bits in (8, 6, 4, 3, 2)},
        "mxfp8": ("mxfp8", 8, None, 32),
        "mxfp4": ("mxfp4", 4, None, 32),
        "nvfp4": ("nvfp4", 4, None, 16),
        "mixed_4_6": ("affine", 4, 6, 64),
    }


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (['precisions=["mxpf4"]'], "unknown precision 'mxpf4'; did you mean 'mxfp4'"),
        (['precisions=["zzzzzz"]'], "unknown precision 'zzzzzz'; known are bf16, 8bit"),
        (['precisions=["bf16", "bf16"]'], "precisions: duplicate name bf16"),
        (['precisions=["bf16"]', "bits=[4]"], "give exactly one of bits and precisions"),
        (['scoring.move_adapters=["8bits"]'], "move_adapters: unknown precision '8bits'; did you mean '8bit'"),
    ],
)
def test_a_mistake_in_the_names_is_a_sentence(overrides, sentence):
    with pytest.raises(BadInput, match=sentence.replace("[", r"\[")) as caught:
        load_grid("smoke", overrides)
    assert "--set" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"name": "4bit", "bits": 4}, "precision: the name 4bit is built in"),
        ({"name": "x", "mode": "mxfp4", "bits": 4, "more": "group_size = 64"}, "group size 64, .*mxfp4 allows 32 only"),
        ({"name": "x", "more": "group_size = 16"}, "group size 16, .*affine allows 32, 64 or 128"),
        ({"name": "x", "mode": "nvfp4", "bits": 8}, "has 8 bits, and the mode nvfp4 allows 4 only"),
        ({"name": "x", "bits": 7}, "has 7 bits, and the mode affine allows 2, 3, 4, 5, 6 or 8"),
        ({"name": "x", "more": "high_bits = 8"}, "mixes 4 and 8 bits, and mlx-lm has recipes for"),
        ({"name": "x", "mode": "int4"}, "'int4'|int4.* is not allowed"),
        ({"name": "x", "mode": "unquantised"}, "is unquantised and has no bits"),
        ({"name": "X Y"}, "is not allowed"),
    ],
    ids=str,
)
def test_a_row_that_mlx_cannot_make_is_refused_with_what_it_can(tmp_path, row, sentence):
    text = ROW.format(**({"mode": "affine", "bits": 4, "more": ""} | row))
    grid = tmp_path / "grid.toml"
    grid.write_text(SMOKE + "\n" + text)
    with pytest.raises(BadInput, match=sentence):
        load_grid(str(grid))


def test_a_row_of_a_grid_is_one_more_precision(tmp_path):
    grid = tmp_path / "grid.toml"
    rows = [("4bit_g32", 4, "group_size = 32"), ("5bit", 5, "")]
    text = "\n".join(ROW.format(name=name, mode="affine", bits=bits, more=more) for name, bits, more in rows)
    grid.write_text(SMOKE.replace("bits = [4, 8]", 'precisions = ["4bit_g32", "bf16", "5bit"]') + "\n" + text)
    cells = select(str(grid), only=Narrowing(precisions=["4bit_g32"])).cells
    assert cells and all(spec.cell_id.split("-")[2] == "4bit_g32" for spec in cells)
    assert {spec.precision.name for spec in select(str(grid), only=Narrowing(bits=[5])).cells} == {"5bit"}


def test_a_head_of_its_own_counts_among_the_tensors_of_a_model():
    args = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-5, "vocab_size": 96,
            "tie_word_embeddings": False}  # fmt: skip
    parameters = tree_flatten(llama.Model(llama.ModelArgs(**args)).parameters())
    shape = ModelShape.model_validate(args)
    assert dict(shape.tensors()) == {name: value.shape for name, value in parameters}
    sizes = expected_sizes(shape, BUILT_IN["bf16"], 64)
    assert sizes.parameters == sum(value.size for _, value in parameters)


def test_a_width_that_the_groups_do_not_divide_is_refused_before_anything_is_fetched():
    # 576 values in a row: 128 does not divide them, and no setting of the grid changes a precision's own groups.
    odd = Precision(name="wide", bits=4, group_size=128)
    with pytest.raises(BadInput, match="rows of 576 values, which a group size of 128 does not divide"):
        expected_sizes(known_shape("smollm2-135m"), odd, 64)
    with pytest.raises(BadInput, match="training.group_size = 128 does not fit smollm2-135m: .*Choose 64 or 32"):
        select("tuned", ["training.group_size=128", 'precisions=["bf16", "mxfp4", "6bit"]'])
    assert select("tuned", ["training.group_size=128", 'precisions=["bf16", "mxfp4", "nvfp4"]']).cells


def test_a_precision_that_the_grid_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(BadInput, match="has no precision bf16; there are 4bit, 8bit"):
        select("smoke", only=Narrowing(precisions=["bf16"]))
    assert {spec.precision.name for spec in select("smoke", only=Narrowing(precisions=["8bit"])).cells} == {"8bit"}


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-gemma3", "smollm2-135m", "smollm2-360m", "gemma-3-270m"])
@pytest.mark.parametrize("high", [(4, 6), (2, 6)])
def test_a_mixture_has_the_bits_that_mlx_lm_gives_each_matrix(shape, high):
    precision = Precision(name="x", bits=high[0], high_bits=high[1])
    untied = known_shape(shape).model_copy(update={"tie_word_embeddings": False})
    tensors = [name.removesuffix(".weight") for name, size in untied.tensors() if len(size) > 1]
    blocks = untied.num_hidden_layers
    model = SimpleNamespace(named_modules=lambda: [(name, None) for name in tensors], layers=[None] * blocks)
    predicate = mixed_quant_predicate_builder(precision.mixture, model, 64)
    assert {name: bits_of(precision, name, blocks) for name in tensors} == {
        name: predicate(name, None)["bits"] for name in tensors
    }


@pytest.mark.parametrize(
    ("original", "bits", "title"),
    [("Q4_1", 4, "unpacked Q4_1"), ("Q4_K_M", 4, "unpacked Q4_K_M"), ("Q5_0/Q8_0", 5, "unpacked Q5_0/Q8_0"),
     ("bf16", None, "bf16"), ("random", None, "bf16"), (None, None, "bf16")],
)  # fmt: skip
def test_weights_that_were_quantised_before_are_no_reference_of_16_bits(original, bits, title):
    assert quantised_source_bits(original) == bits and title_of("bf16", original) == title
    assert title_of("4bit", original) == "4bit"
    assert (reference_note(original) is None) == (bits is None)
    if bits == 4:
        assert reference_note(original) == "reference already 4-bit: nothing follows about 8 bits or more"
