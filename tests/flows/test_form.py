"""The forms of the Prefect UI: their drop-downs hold what is there, and take what is typed."""

import pytest
from prefect.utilities.callables import parameter_schema

from flows.experiment import experiment
from flows.sweep import sweep
from tasks.grids.grid import GRIDS, known_models, load_grid
from tasks.precisions import BUILT_IN

GRID_NAMES = sorted(path.stem for path in GRIDS.glob("*.toml"))
OFFERED = {
    "grid": GRID_NAMES,
    "model": sorted(known_models()),
    "precision": sorted(BUILT_IN),
    "recipe": sorted({recipe.name for name in GRID_NAMES for recipe in load_grid(name).recipes}),
}


def choices(parameter):
    """The values of a drop-down, of a single value or of a list of them; None where nothing can be typed beside them."""
    alternatives = parameter.get("anyOf", [parameter])
    alternatives = next((one["items"]["anyOf"] for one in alternatives if "items" in one), alternatives)
    alternatives = next((one["anyOf"] for one in alternatives if "anyOf" in one), alternatives)
    return next((one["enum"] for one in alternatives if "enum" in one and {"type": "string"} in alternatives), None)


@pytest.mark.parametrize("flow", [sweep, experiment], ids=["sweep", "experiment"])
def test_every_parameter_has_a_description_and_names_have_a_drop_down_beside_which_others_can_be_typed(flow):
    schema = parameter_schema(flow.fn).model_dump()
    narrowing = schema["definitions"]["Narrowing"]["properties"] if flow is sweep else {}
    parameters = schema["properties"] | narrowing
    assert all(parameter["description"] for parameter in parameters.values())
    found = {name: choices(parameters.get(name) or parameters[f"{name}s"]) for name in OFFERED}
    assert found == OFFERED
