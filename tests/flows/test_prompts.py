"""Two prompts in one grid, through the real command: each has untuned models of its own."""

import pytest

from tests.place import Place


@pytest.mark.nightly
def test_recipes_with_prompts_of_their_own_land_beside_untuned_models_of_both(tmp_path):
    place = Place(tmp_path)
    options = ("--model", "tiny-llama", "--bits", "4", "--set", "training.max_tokens=1024")
    sets = "recipe=[{a}, {b}]".format(
        a="{ name = 'plain', kind = 'standard', learning_rate = 1e-3, batch_size = 4, rank = 4, scale = 20, dropout = 0.0,"
        " iterations = 2 }",
        b="{ name = 'shown', kind = 'standard', learning_rate = 1e-3, batch_size = 4, rank = 4, scale = 20, dropout = 0.0,"
        " iterations = 2, num_layers = 1, prompt = { version = 2, answers = { ED = 'now', GP = 'soon', HOME = 'rest' } } }",
    )
    result = place.run("sweep", "smoke", *options, "--set", sets)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = place.query("SELECT cell_id, num_layers FROM experiment WHERE base_model = 'tiny-llama' ORDER BY cell_id")
    assert rows.cell_id.tolist() == [
        "tiny-llama-4bit-plain-s42", "tiny-llama-4bit-shown-s42", "tiny-llama-4bit-zero_shot",
        "tiny-llama-4bit-zero_shot prompt 2 now/soon/rest",
    ]  # fmt: skip
    assert rows.num_layers.tolist()[:2] == [2, 1] and place.audits() == {}
    shown = place.ask("compare", "--all")
    assert "tiny-llama-4bit-zero_shot prompt 2 now/soon/rest" in shown.stdout
    again = place.run("sweep", "smoke", *options, "--set", sets, "--plan")
    assert "2 trained, 0 to train, 0 to score" in again.stdout
