"""What a search is, from a grid and options: the space of its one cell. Without Prefect, so that
the command refuses in a moment what cannot be searched.
"""

from __future__ import annotations

from pathlib import Path

from flows.selection import Narrowing, refuse_misfits_of, select
from tasks.corpus.manifest import DatasetManifest
from tasks.grids.grid import grid_path, known_models
from tasks.grids.grid_errors import where
from tasks.runtime.errors import BadInput
from tasks.search.space import Space


def set_up(
    grid: str, overrides: list[str] | None, narrowing: Narrowing, seed: int | None = None
) -> Space:
    """The space of a grid's first cell among those that `narrowing` and `seed` leave.

    Raises BadInput for what cannot be searched.
    """
    selection = select(grid, overrides, narrowing)
    if seed is not None:
        selection = selection.with_seed(seed)

    def refusal(problem: object, *key: str) -> BadInput:
        place = where(grid_path(grid), ["search", *key], overrides or [])
        return BadInput(f"{place}: {problem}")

    search = selection.grid.search
    if search is None or not search.settings:
        raise refusal(
            "no [search] table names a setting to search; add one, e.g. [search] with the line "
            '"recipe.learning_rate" = { low = 1e-4, high = 1e-2, log = true }.'
        )

    cell = selection.cells[0]
    recipe = next(r for r in selection.grid.recipes if r.name == cell.recipe.name)
    # The searched precision, under the key that the grid has.
    has_bits = selection.grid.bits is not None
    precision = {"bits": (cell.bits,)} if has_bits else {"precisions": (cell.precision.name,)}
    one_cell = selection.grid.model_copy(
        update={
            "models": (cell.model.name,),
            "seeds": (cell.seed,),
            **precision,
            # The cell's seed counts, whatever seeds its recipe names.
            "recipes": (recipe.model_copy(update={"seeds": None}),),
        }
    )
    space = Space(one_cell, search, cell.model)
    for key, problem in space.problems():
        raise refusal(problem, key)

    # Blocks and modules that the base model does not have, before anything is fetched.
    models = known_models(one_cell)
    for key, value in space.samples():
        try:
            refuse_misfits_of(space.grid_with({key: value}), models)
        except BadInput as error:
            raise refusal(error, key) from error

    return space


def refuse_without_emergencies(data: Path) -> None:
    """Raise BadInput for cases that cannot say how a recipe treats emergencies."""
    dataset = DatasetManifest.read(data)
    if not dataset.sets["valid"].labels.get("ED"):
        raise BadInput(
            f"The set valid of {dataset.source} has no ED case, so a search would choose a recipe "
            "whose ED recall is unknown; add ED cases, or raise data.limits.valid."
        )
