"""Nightly, through the real command: other precisions, prompts in one grid, the demo on real weights, and chaos.

uv run pytest -n 0 -m nightly tests/flows/test_nightly.py -k real        (needs the package index)
"""

import json
import re

import pytest

from tasks.corpus.vignettes.adversarial import adversarial_records
from tests.chaos.faults import IN_POOL
from tests.place import Place

pytestmark = pytest.mark.nightly
PRECISIONS = 'precisions=["bf16", "4bit"]'
MOVES = 'scoring.move_adapters=["mxfp4", "4bit"]'
NO_PASSES = "scoring.moved_passes=false"


def test_one_adapter_is_landed_at_every_precision_on_both_sets_and_nothing_else_is_trained(smoke, tmp_path):
    """A sweep of one recipe in bfloat16 and 4 bits in a finished place, each adapter scored at mxfp4 too."""
    place = smoke[0].copy(tmp_path / "place")
    few = place.folder / "few.jsonl"
    cases = [record.case for record in adversarial_records()[:24]]
    few.write_text("".join(json.dumps({"text": case.text, "label": case.label}) + "\n" for case in cases))
    sets = f'evaluation_set=[{{ name = "few", source = "{few}" }}]'
    options = ("--model", "tiny-llama", "--recipe", "balanced_safe")
    settings = [part for key in (PRECISIONS, MOVES, NO_PASSES, sets) for part in ("--set", key)]

    result = place.run("sweep", "smoke", *options, *settings)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    done = [name for name, (state, _) in place.last_steps().items() if state == "Completed"]
    assert [name for name in done if name.startswith("train ")] == ["train tiny-llama bf16 balanced_safe s42"]
    landed = place.query(
        "SELECT cell_id, bits, precision, group_size, compute_path FROM experiment "
        "WHERE recipe LIKE 'balanced_safe%' AND base_model = 'tiny-llama' AND precision NOT IN ('8bit') ORDER BY cell_id"
    )
    assert landed.cell_id.tolist() == [
        "tiny-llama-4bit-balanced_safe-frombf16-again-s42", "tiny-llama-4bit-balanced_safe-frombf16-s42",
        "tiny-llama-4bit-balanced_safe-s42", "tiny-llama-bf16-balanced_safe-s42",
        "tiny-llama-mxfp4-balanced_safe-from4bit-again-s42", "tiny-llama-mxfp4-balanced_safe-from4bit-s42",
        "tiny-llama-mxfp4-balanced_safe-frombf16-again-s42", "tiny-llama-mxfp4-balanced_safe-frombf16-s42",
    ]  # fmt: skip
    assert landed.precision.tolist() == ["4bit"] * 3 + ["bf16"] + ["mxfp4"] * 4
    assert landed.group_size.fillna(0).tolist() == [64] * 3 + [0] + [32] * 4
    assert set(landed.compute_path) <= {"packed", "dequantised_f32"} and landed.compute_path.notna().all()
    assert place.audits() == {}
    frontier = place.query(
        "SELECT adapter, evaluation_set, precision FROM frontier WHERE recipe = 'balanced_safe' AND precision <> '8bit'"
    )
    matches = {key: set(group.precision) for key, group in frontier.groupby(["adapter", "evaluation_set"])}
    for name in ("test", "few"):
        for arm in ("", ", threshold chosen again"):
            assert matches[f"from bf16{arm}", name] == {"bf16", "4bit", "mxfp4"}
            assert matches[f"from 4bit{arm}", name] == {"4bit", "mxfp4"}

    reasons = place.query(
        "SELECT DISTINCT mc_status, mc_reason FROM evaluation JOIN experiment USING (training_id) "
        "WHERE recipe_kind = 'moved_adapter' AND evaluation_set = 'test'"
    )
    ((status, reason),) = reasons.values.tolist()
    assert status == "not available" and reason.startswith("scoring.moved_passes is false")
    fidelity = place.query("SELECT DISTINCT precision FROM fidelity WHERE base_model = 'tiny-llama'")
    assert set(fidelity.precision) == {"4bit", "8bit", "mxfp4"}


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


SHORT = [
    "--set", "recipe.iterations=2", "--set", "data.limits={train=24, valid=12, calibration=24, test=24}",
    "--set", "scoring={generated_cases=2, fidelity_cases=6, move_adapters=['mxfp4']}",
]  # fmt: skip


@pytest.mark.weights
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("model", ["smollm2-135m", "gemma-3-270m"])
def test_both_bit_widths_of_real_weights_train_and_land_and_the_second_time_nothing_is_done(model, place):
    first = place.start("sweep", "demo", "--model", model, *SHORT)
    first.wait(timeout=1800)
    assert place.finish(first).returncode == 0, (place.folder / "err").read_text()
    landed = place.query(
        "SELECT bits, recipe, status, random_weights, weights_source FROM experiment JOIN evaluation USING (training_id) "
        "WHERE recipe_kind IN ('standard', 'safety') ORDER BY ALL"
    )
    assert landed.bits.tolist() == [4, 8] and set(landed.recipe) == {"quick"}
    assert set(landed.status) == {"completed"} and not landed.random_weights.any()
    assert len(place.query("FROM quantization_comparison")) == 2, "the recipe, and the untuned model"
    bench = Place(place.folder, ("-m", "tests.bench.serve"))
    served = bench.run(f"{model}-4bit-quick", "--requests", "40", "--texts", "24", COLUMNS="140")
    assert re.search(r"other decisions +│ 0 ", served.stdout), served.stdout + served.stderr
    adapters = {path: path.stat().st_mtime_ns for path in (place.home / "experiments").glob("*/adapters.safetensors")}
    again = place.run("sweep", "demo", "--model", model, *SHORT)
    assert again.returncode == 0 and "validation" not in again.stdout
    assert len(adapters) == 2 and all(path.stat().st_mtime_ns == before for path, before in adapters.items())


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", [[], ["--pool"]], ids=["here", "in a pool"])
def test_a_sweep_under_every_fault_lands_what_an_undisturbed_one_does(kind, tmp_path):
    place = Place(tmp_path, ("-m", "tests.chaos"), is_new=True)
    result = place.run(*kind, "--faults", str(len(IN_POOL)), "--experiments", "8", "--iterations", "48")
    assert result.returncode == 0, result.stdout + result.stderr
