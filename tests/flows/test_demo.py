"""The demo on real weights, shortened: both bit widths train and land, and the second time nothing is done again.

uv run pytest -n 0 -m nightly tests/flows/test_demo.py        (needs the package index)
"""

import re

import pytest

from tests.place import Place

SHORT = [
    "--set", "recipe.iterations=2", "--set", "data.limits={train=24, valid=12, calibration=24, test=24}",
    "--set", "scoring={passes=4, mc_cases=6, generated_cases=2, fidelity_cases=6}",
]  # fmt: skip


@pytest.mark.nightly
@pytest.mark.weights
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("model", ["smollm2-135m", "gemma-3-270m"])
def test_both_bit_widths_of_real_weights_train_and_land_and_the_second_time_nothing_is_done(
    model, place: Place
) -> None:
    first = place.start("sweep", "demo", "--model", model, *SHORT)
    first.wait(timeout=1800)
    assert place.finish(first).returncode == 0, (place.folder / "err").read_text()
    landed = place.query(
        "SELECT bits, recipe, status, random_weights, weights_source FROM experiment JOIN evaluation USING (training_id) "
        "WHERE recipe_kind IN ('standard', 'safety') ORDER BY ALL"
    )
    assert landed.bits.tolist() == [4, 4, 8, 8] and landed.recipe.tolist() == ["quick", "quick_safe"] * 2
    assert set(landed.status) == {"completed"} and not landed.random_weights.any()
    assert len(place.query("FROM quantization_comparison")) == 3, "the two recipes, and the untuned model"
    bench = Place(place.folder, ("-m", "tests.bench.serve"))
    served = bench.run(f"{model}-4bit-quick_safe", "--requests", "40", "--texts", "24", COLUMNS="140")
    assert re.search(r"other decisions +│ 0 ", served.stdout), served.stdout + served.stderr
    adapters = {path: path.stat().st_mtime_ns for path in (place.home / "experiments").glob("*/adapters.safetensors")}
    again = place.run("sweep", "demo", "--model", model, *SHORT)
    assert again.returncode == 0 and "validation" not in again.stdout
    assert len(adapters) == 4 and all(path.stat().st_mtime_ns == before for path, before in adapters.items())
