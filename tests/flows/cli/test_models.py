"""`triage models`: sizes that follow from shapes are those of real folders, to the byte."""

import io
from unittest.mock import patch

import pytest
from rich.console import Console

from flows.cli.models import model_sizes, models
from tasks.grids.grid import known_models, load_grid
from tasks.models.convert import run_quantize
from tasks.models.sizes import ModelShape, expected_sizes, known_shape, lora_parameters
from tasks.models.sources.fetch import fetch_base
from tasks.precisions import BUILT_IN, Precision, of_bits
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.store import SEAL, read_manifest, seal

PUBLISHED = {
    ("smollm2-135m", 4): 75_715_200, ("smollm2-135m", 8): 142_955_136, ("smollm2-360m", 4): 203_614_080,
    ("smollm2-360m", 8): 384_493_440, ("gemma-3-270m", 4): 150_885_632, ("gemma-3-270m", 8): 284_906_752,
    ("smollm2-135m", None): 2 * 134_515_008, ("smollm2-360m", None): 2 * 361_821_120,
    ("gemma-3-270m", None): 2 * 268_098_176,
}  # fmt: skip
QV = ("self_attn.q_proj", "self_attn.v_proj")


def printed() -> str:
    out = io.StringIO()
    with patch("flows.cli.models.console", Console(width=140, file=out)):
        models()
    return out.getvalue()


def make(name: str, precision: Precision) -> None:
    source = fetch_base(known_models()[name], home())
    run_quantize({"source": str(source), "root": str(home()), "precision": precision.model_dump(), "group_size": 64})


def test_every_variant_of_the_study_has_exactly_the_published_bytes():
    for (name, bits), total in PUBLISHED.items():
        sizes = expected_sizes(known_shape(name), of_bits(bits), 64)
        assert sizes.stored_bytes == total == sum(sizes.bytes_by_part.values())


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gemma3"])
def test_the_formula_gives_what_a_real_folder_of_every_precision_holds_part_by_part(name):
    precisions = [precision for precision in BUILT_IN.values() if precision.name != "8bit"]
    for precision in precisions:
        make(name, precision)

    sizes = model_sizes(load_grid("smoke"), home())
    rows = {row["precision"].name: row for row in sizes if row["base_model"] == name}
    assert list(rows) == list(BUILT_IN) and len(rows) == 10
    for precision in BUILT_IN.values():
        assert rows[precision.name]["sizes"] == expected_sizes(known_shape(name), precision, 64)
    assert "random weights" in rows["4bit"]["source"]
    assert rows["8bit"]["source"] == f"fetched ({rows['4bit']['source']}), not converted yet"


def test_a_folder_that_holds_other_bytes_than_its_shape_gives_is_named():
    make("tiny-llama", of_bits(4))
    (folder,) = (home() / "models").glob("tiny-llama-4bit-*")
    (base,) = (home() / "models").glob("tiny-llama-base-*")
    (folder / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())  # not quantised at all
    seal(folder, {key: value for key, value in read_manifest(folder).items() if key not in SEAL})
    with patch("flows.cli.models.STUDY", "smoke"):
        text = printed()
    assert "WARNING" in text
    assert "embedding 98,304 bytes where its shape gives 27,648" in text and "norms 0" not in text


def test_trainable_parameters_are_those_that_the_engine_counts():
    # rank x (inputs + outputs) by hand: q 576 -> 576 and v 576 -> 192 in each of 16 blocks.
    assert lora_parameters(known_shape("smollm2-135m"), 8, 16, QV) == 16 * 8 * (576 + 576 + 576 + 192)
    with pytest.raises(BadInput, match=r"'self_attn\.q'"):
        lora_parameters(known_shape("gemma-3-270m"), 8, 16, ("self_attn.q",))

    from tasks.tuning.lora import add_lora
    from tasks.tuning.model import take_apart
    from tests.tuning import tiny

    model, _ = tiny.base_model("gemma3_text")
    shape = ModelShape.model_validate({**vars(model.args), "tie_word_embeddings": True})
    adapted = add_lora(take_apart(model), tiny.recipe(rank=6), tiny.TRAINING, seed=1)
    assert lora_parameters(shape, 6, tiny.TRAINING.num_layers, QV) == adapted.trainable


def test_nothing_fetched_prints_the_exact_sizes_of_all_and_each_recipes_share():
    text = printed()
    assert all(f"{total:,}" in text for total in PUBLISHED.values())
    assert text.count("not fetched") == 3 * len(BUILT_IN) + 1  # every row, and the line that explains it
    for recipe in load_grid("paper").recipes:
        assert recipe.name in text
    assert "245,760 (0.18%)" in text and "WARNING" not in text


def test_random_weights_of_the_true_shapes_take_the_place_of_every_source():
    grid = load_grid("paper", ["weights=random"])
    for name in grid.models:
        model = known_models(grid)[name]
        assert [(source.kind, source.shape) for source in model.sources] == [("random", name)]
        assert model.terms is None, "nobody's terms bind random numbers"

    assert known_models(load_grid("paper"))["gemma-3-270m"].terms
    with pytest.raises(BadInput, match='weights = "rnd" is not allowed'):
        load_grid("paper", ["weights=rnd"])
