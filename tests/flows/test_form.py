"""The forms of the Prefect UI: their drop-downs hold what is there, and take what is typed."""

from typing import Any, Literal, get_args, get_origin

import pytest
from prefect.utilities.callables import parameter_schema

from flows import selection
from flows.experiment import experiment
from flows.sweep import sweep
from tasks.grids.grid import GRIDS, known_models, load_grid
from tasks.precisions import BUILT_IN

GRID_NAMES = sorted(path.stem for path in GRIDS.glob("*.toml"))
RECIPES = sorted({recipe.name for name in GRID_NAMES for recipe in load_grid(name).recipes})


def offered(choice: Any) -> list[str]:
    """The values of the drop-down of `Literal[...] | str`."""
    (literal,) = (part for part in get_args(choice) if get_origin(part) is Literal)
    return list(get_args(literal))


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        (selection.GridName, GRID_NAMES),
        (selection.ModelName, sorted(known_models(load_grid("paper")))),
        (selection.PrecisionName, list(BUILT_IN)),
        (selection.RecipeName, RECIPES),
    ],
    ids=["grids", "models", "precisions", "recipes"],
)
def test_a_drop_down_offers_what_the_project_brings(choice, options):
    assert offered(choice) == options


@pytest.mark.parametrize("flow", [sweep, experiment], ids=["sweep", "experiment"])
def test_every_parameter_has_a_description_and_names_have_a_drop_down(flow):
    properties = parameter_schema(flow.fn).model_dump()["properties"]
    assert all(parameter["description"] for parameter in properties.values())
    kinds = properties["grid"]["anyOf"]
    assert kinds[0]["enum"] == GRID_NAMES and kinds[1] == {"type": "string"}
