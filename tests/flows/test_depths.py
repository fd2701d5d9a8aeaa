"""Recipes that train different numbers of blocks, through the real command: each prefix starts from a shallower one."""

import json
from pathlib import Path

import pytest

from tasks.grids.grid import GRIDS
from tests.place import Place

RECIPE = """
[[recipe]]
name = "{name}"
kind = "standard"
learning_rate = 1e-3
batch_size = 4
rank = 4
scale = 20
dropout = 0.0
iterations = 2
num_layers = {layers}
"""
SHALLOW, DEEP = (RECIPE.format(name=name, layers=layers) for name, layers in (("shallow", 1), ("deep", 2)))


def grid_with(folder: Path, *recipes: str) -> str:
    """The path of a grid as smoke, with these recipes and no search."""
    smoke = (GRIDS / "smoke.toml").read_text()
    path = folder / "depths.toml"
    path.write_text(smoke[: smoke.index("[[recipe]]")].replace('name = "smoke"', 'name = "depths"') + "".join(recipes))
    return str(path)


@pytest.mark.nightly  # that blocks go on from fewer blocks is tested in tuning/test_frozen_prefix.py
def test_a_recipe_that_trains_fewer_blocks_starts_from_what_is_stored_of_the_others(tmp_path):
    place = Place(tmp_path)
    clinic = tmp_path / "clinic.csv"
    clinic.write_text(
        "text,label\nCrushing chest pain since an hour.,ED\nA rash for two weeks.,GP\nA mild cold.,HOME\n"
    )
    changes = (
        f'evaluation_set=[{{ name = "clinic", source = "{clinic}" }}]',
        'scoring.move_adapters=["8bit"]',
    )
    options = [word for change in changes for word in ("--set", change)]
    result = place.run("sweep", grid_with(tmp_path, DEEP, SHALLOW), "--model", "tiny-llama", "--bits", "4", *options)
    assert result.returncode == 0, result.stdout + result.stderr

    ages: dict[tuple[str, int, int], dict[int, int]] = {}
    for path in place.home.glob("prefixes/*/manifest.json"):
        stored = json.loads(path.read_text())
        of_set = ages.setdefault((stored["variant"], stored["rows"], stored["tokens"]), {})
        of_set[stored["boundary"]] = path.stat().st_mtime_ns

    both = [stored for stored in ages.values() if len(stored) == 2]
    assert len(both) == 5 + 2, "four sets and the clinic's at 4 bits; test and the clinic's at 8"
    assert all(stored[2] < stored[3] for stored in both), "the deeper one goes on from the shallower"
