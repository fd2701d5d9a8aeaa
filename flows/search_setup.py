"""What a search is, from a grid and options: its cell, its space, its
rungs, and where it is stored.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.selection import Narrowing, Selection, refuse_misfits_of, select
from tasks.corpus.manifest import DatasetManifest
from tasks.grids.grid import grid_path, known_models
from tasks.precisions import Precision
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.search.check_space import NO_PART_OF_TRAINING, check_space
from tasks.search.halving import Halving, rungs
from tasks.search.objective import SearchObjective
from tasks.search.space import SECTIONS, Space
from tasks.spec import ExperimentSpec, Grid, Strict

SEARCH_VERSION = 1  # of what a stored trial means
DEFAULT_TRIALS = 16
MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Limits:
    """How long a search goes on: until it has so many trials, or for so many hours.

    Without either it makes 16 trials; with hours alone it makes as many as it can finish.
    """

    trials: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        if self.trials is not None and not 1 <= self.trials <= MOST_TRIALS:
            raise BadInput(
                f"--trials {self.trials} is not possible; give 1 to {MOST_TRIALS:,} trials."
            )
        if self.hours is not None and not 0 < self.hours < math.inf:
            raise BadInput(f"--hours {self.hours:g} leaves no time to search; give more than 0.")

    @property
    def trial_count(self) -> int:
        """The number of trials."""
        if self.trials is not None:
            return self.trials
        return DEFAULT_TRIALS if self.hours is None else MOST_TRIALS


@dataclass(frozen=True)
class SearchSetup:
    """A search that may start: nothing of its grid and options is refused.

    `selection`: the grid narrowed to one cell, and that cell.
    """

    space: Space
    selection: Selection
    halving: Halving
    objective: SearchObjective

    @property
    def spec(self) -> ExperimentSpec:
        """The cell as the grid has it."""
        return self.selection.cells[0]

    @property
    def folder(self) -> Path:
        """Where the trials and the winner's grid are stored."""
        return home() / "searches" / f"{self.space.grid.name}-{self.spec.cell_id}"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the trials besides cases, weights and versions, by name."""
        search = self.space.search.model_dump(mode="json", exclude_none=True)
        ranges = search.pop("settings")
        searched = set(self.space.settings)
        sections = {name: getattr(self.spec, name) for name in SECTIONS}

        return {
            "version of the search": SEARCH_VERSION,
            "search": search | ranges,
            **{name: _fixed(name, section, searched) for name, section in sections.items()},
        }


def set_up(
    grid: str, overrides: list[str] | None, narrowing: Narrowing, seed: int | None = None
) -> SearchSetup:
    """Read a grid for a search of its first cell among those that `narrowing` and `seed` leave.

    Raises BadInput for what cannot be searched.
    """
    selection = select(grid, overrides, narrowing)
    if seed is not None:
        selection = selection.with_seed(seed)

    cell = selection.cells[0]
    recipe = next(r for r in selection.grid.recipes if r.name == cell.recipe.name)
    one_cell = selection.grid.model_copy(
        update={
            "models": (cell.model.name,),
            **_only(cell.precision, selection.grid),
            "seeds": (cell.seed,),
            # The cell's seed counts, whatever seeds its recipe names.
            "recipes": (recipe.model_copy(update={"seeds": None}),),
        }
    )

    space = Space(one_cell, cell.model, grid_path(grid), tuple(overrides or ()))
    search = space.search
    check_space(space)
    _refuse_misfits(space)
    training = cell.training
    pauses = rungs(cell.recipe.iterations, training.evaluate_every, search.rungs)

    return SearchSetup(
        space,
        replace(selection, grid=one_cell, cells=[cell]),
        Halving(pauses, search.keep),
        SearchObjective.of(cell.recipe, search),
    )


def refuse_unsearchable(selection: Selection, grid: str, overrides: list[str] | None) -> None:
    """Raise BadInput where a grid's [search] table suits none of its recipes, in the sentence with
    which a search of the first would be refused. A grid without the table needs none.
    """
    search = selection.grid.search
    if search is None or not search.settings:
        return

    refusals = []
    for recipe in selection.grid.recipes:
        grid_of_recipe = selection.grid.model_copy(update={"recipes": (recipe,)})
        space = Space(grid_of_recipe, selection.models[0], grid_path(grid), tuple(overrides or ()))
        try:
            check_space(space)
        except BadInput as error:
            refusals.append(error)

    if len(refusals) == len(selection.grid.recipes):
        raise refusals[0]


def _only(precision: Precision, grid: Grid) -> dict[str, Any]:
    """The precision of the searched cell, under the key that the grid has."""
    if grid.bits is not None:
        return {"bits": (precision.bits,)}
    return {"precisions": (precision.name,)}


def _fixed(name: str, section: Strict, searched: set[str]) -> dict[str, Any]:
    """The settings of a section that every trial has, where they are not the default."""
    values = section.model_dump(mode="json", exclude_defaults=True)
    ignored = searched | NO_PART_OF_TRAINING.keys()
    return {key: value for key, value in values.items() if f"{name}.{key}" not in ignored}


def _refuse_misfits(space: Space) -> None:
    """Refuse blocks and modules that the base model does not have, before anything is fetched."""
    models = known_models(space.grid)
    for key, value in space.samples():
        try:
            refuse_misfits_of(space.grid_with({key: value}), models)
        except BadInput as error:
            raise BadInput(f"{space.place(key)}: {error}") from error


def refuse_without_emergencies(data: Path) -> None:
    """Raise BadInput for cases that cannot say how a recipe treats emergencies."""
    dataset = DatasetManifest.read(data)
    if not dataset.sets["valid"].labels.get("ED"):
        raise BadInput(
            f"The set valid of {dataset.source} has no ED case, so a search would choose a recipe "
            "whose ED recall is unknown; add ED cases, or raise data.limits.valid."
        )


@contextlib.contextmanager
def alone(setup: SearchSetup) -> Iterator[None]:
    """Keep a second search of the same cell away while the block runs."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(setup.folder))
        except Locked as error:
            raise Locked(
                f"Another search of {setup.space.grid.name} ({setup.spec.title}) is running; wait "
                "for it or stop it, then run the same command."
            ) from error
        yield
