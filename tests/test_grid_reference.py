"""The reference of the grid's keys is the one that the models give, and it is complete."""

import pytest

from tasks.grids.grid_reference import README, SECTIONS, key_rows, reference


def test_the_reference_of_the_grid_keys_is_up_to_date():
    written = README.read_text(encoding="utf-8")
    assert written == reference(), "run: python -m tasks.grids.grid_reference"


@pytest.mark.parametrize(("title", "model"), SECTIONS)
def test_every_key_of_a_grid_has_a_description(title, model):
    keys = list(model.model_json_schema()["properties"])
    rows = list(key_rows(model))
    assert len(rows) == len(keys)
    assert [row for row in rows if row.endswith("|  |")] == [], title
