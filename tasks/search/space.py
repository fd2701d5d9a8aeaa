"""The space of a search: the settings that vary, and the experiment that values of them give.
`check_space` refuses what cannot be searched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tasks.grids.grid_errors import where
from tasks.runtime.errors import BadInput
from tasks.spec import (
    BaseModelSpec,
    ExperimentSpec,
    Grid,
    PromptChoice,
    Range,
    Recipe,
    Search,
    Searched,
    Strict,
    experiments,
)

Value = Any  # of a setting, as TOML gives it
Values = Mapping[str, Value]  # by dotted key, e.g. `recipe.rank`
Spec = TypeVar("Spec", bound=Strict)

SECTIONS = ("recipe", "training", "prompt")
EXAMPLE = '"recipe.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'


@dataclass(frozen=True)
class Space:
    """The searched settings of a grid that has one base model, precision, recipe and seed.

    `path` and `overrides` say where the grid comes from, for errors.
    """

    grid: Grid
    model: BaseModelSpec
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def search(self) -> Search:
        """The grid's table `[search]`; raises BadInput where it names no setting."""
        search = self.grid.search
        if search is None:
            raise BadInput(
                f"{self.path} has no [search] table, which says what to search; add one, "
                f"e.g. [search] with the line {EXAMPLE}."
            )
        if not search.settings:
            place = where(self.path, ["search"], [*self.overrides])
            raise BadInput(
                f"{place}: the table [search] names no setting to search; add one, e.g. {EXAMPLE}."
            )

        return search

    @property
    def recipe(self) -> Recipe:
        """The recipe whose settings vary."""
        return self.grid.recipes[0]

    @property
    def settings(self) -> Mapping[str, Searched]:
        """Range or choices of each searched setting, in the order of their keys."""
        return dict(sorted(self.search.settings.items()))

    @property
    def size(self) -> float:
        """The number of different recipes in the space; infinite with a range of real numbers."""
        return math.prod(map(_size, self.settings.values()))

    def grid_with(self, values: Values) -> Grid:
        """The grid with these values. Raises ValidationError for a value that a setting refuses."""
        changes: dict[str, Any] = {}
        for section in dict.fromkeys(key.partition(".")[0] for key in values):
            recipe_changes = {
                key.partition(".")[2]: value
                for key, value in values.items()
                if key.startswith(f"{section}.")
            }
            if section == "recipe":
                changes["recipes"] = (_with_values(self.recipe, recipe_changes),)
            else:
                changes[section] = _with_values(getattr(self.grid, section), recipe_changes)

        return self.grid.model_copy(update=changes)

    def experiment(self, values: Values) -> ExperimentSpec:
        """The experiment that these values make of the grid's one cell."""
        (spec,) = experiments(self.grid_with(values), {self.model.name: self.model})
        return spec

    def prompts(self) -> list[PromptChoice]:
        """The grid's prompt, and those that a trial may have: their examples must stand in no set."""
        searched = [(key, value) for key, value in self.samples() if key.startswith("prompt.")]
        return [*self.grid.prompts, *(self.grid_with({key: v}).prompt for key, v in searched)]

    def starting_values(self) -> Values | None:
        """The values that the grid itself has, as the space writes them, if they lie in the space:
        the first trial.
        """
        values: dict[str, Value] = {}
        for key, searched in self.settings.items():
            own_value = value_in(self.grid, key)
            if isinstance(searched, Range):
                inside = _in_range(searched, own_value)
            else:
                inside = [
                    choice
                    for choice in searched
                    if value_in(self.grid_with({key: choice}), key) == own_value
                ]
            if not inside:
                return None
            values[key] = inside[0]

        return values

    def samples(self) -> Iterator[tuple[str, Value]]:
        """The ends of each range, and every choice: what a setting that refuses a value refuses."""
        for key, searched in self.settings.items():
            values = [searched.low, searched.high] if isinstance(searched, Range) else searched
            for value in values:
                yield key, value

    def place(self, key: str) -> str:
        """Where a searched setting stands in the grid file."""
        return where(self.path, ["search", key], [*self.overrides])


def value_in(grid: Grid, key: str) -> Value:
    """The value of a setting in a grid with one recipe."""
    section, _, name = key.partition(".")
    spec = grid.recipes[0] if section == "recipe" else getattr(grid, section)
    return getattr(spec, name)


def _with_values(spec: Spec, values: Values) -> Spec:
    return type(spec).model_validate({**spec.model_dump(exclude_unset=True), **values})


def _size(searched: Searched) -> float:
    if not isinstance(searched, Range):
        return len(searched)
    return searched.high - searched.low + 1 if _is_whole(searched) else math.inf


def _is_whole(searched: Range) -> bool:
    """Whether the range is one of whole numbers."""
    return isinstance(searched.low, int) and isinstance(searched.high, int)


def _in_range(searched: Range, value: Value) -> list[Value]:
    """The value as the range writes it; empty where it has no such value."""
    if not isinstance(value, int | float) or not searched.low <= value <= searched.high:
        return []
    if not _is_whole(searched):
        return [value]
    return [int(value)] if float(value).is_integer() else []
