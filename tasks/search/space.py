"""The space of a search: the settings that vary, and the experiment that values of them give."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.grids.grid_errors import reason, shortened, where
from tasks.runtime.errors import BadInput
from tasks.spec import (
    OVERRIDES,
    BaseModelSpec,
    ExperimentSpec,
    Grid,
    PromptChoice,
    Range,
    Recipe,
    Search,
    Searched,
    Strict,
    canonical_json,
    experiments,
)

Value = Any  # of a setting, as TOML gives it
Values = Mapping[str, Value]  # by dotted key, e.g. `recipe.rank`
Spec = TypeVar("Spec", bound=Strict)

SECTIONS = ("recipe", "training", "prompt")
EXAMPLE = '"recipe.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'
# Settings that a search leaves as they are, and why.
LEFT_ALONE = {
    "recipe.name": "it decides no training",
    "recipe.kind": "it decides what the search aims at",
    "recipe.iterations": "trials of different lengths cannot be compared before their end",
    "recipe.target_ed_recall": "it decides how an adapter is judged, and no training",
    "recipe.primary_rule": "it decides how an adapter is judged, and no training",
    "recipe.evaluate_every": "it decides at which updates trials can pause",
    "recipe.select_by": "it decides which adapter is evaluated, not how one is trained",
    "recipe.prompt": "the keys of [prompt] are searched one by one, e.g. prompt.version",
    "training.group_size": "it decides the quantised weights, which all trials share",
    "training.memory": "it never changes results",
    "training.report_every": "it decides no training",
    "training.evaluate_every": "it decides at which updates trials can pause",
    "training.patience": "it would compare trials of different lengths",
    "training.optimizer": "there is only one",
    "training.mask_prompt": "it is always true",
}
# Settings that change what the validation value measures, so that it compares no two trials.
CHANGE_THE_VALUE = ("prompt.answers", "recipe.label_weight", "recipe.label_smoothing")


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
            ours = {
                key.partition(".")[2]: value
                for key, value in values.items()
                if key.startswith(f"{section}.")
            }
            if section == "recipe":
                changes["recipes"] = (_changed(self.recipe, ours),)
            else:
                changes[section] = _changed(getattr(self.grid, section), ours)
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
        """The values that the grid itself has, if they lie in the space: the first trial."""
        values = {key: _value_in(self.grid, key) for key in self.settings}
        inside = (_contains(self.settings[key], value) for key, value in values.items())
        return values if all(inside) else None

    def samples(self) -> Iterator[tuple[str, Value]]:
        """The ends of each range, and every choice: what a setting that refuses a value refuses."""
        for key, searched in self.settings.items():
            values = [searched.low, searched.high] if isinstance(searched, Range) else searched
            for value in values:
                yield key, value

    def check(self) -> None:
        """Raise BadInput for a recipe whose trials cannot be compared, for a key that is no
        setting, and for a value that its setting refuses.
        """
        if self.recipe.select_by != "loss":
            raise BadInput(
                f"The recipe {self.recipe.name} has select_by = {self.recipe.select_by!r}, while a "
                "search compares trials by the validation value; take select_by out of the recipe."
            )
        for key in self.settings:
            self._refuse_no_setting(key)
        for key, value in self.samples():
            self._refuse_value(key, value)

    def place(self, key: str) -> str:
        """Where a searched setting stands in the grid file."""
        return where(self.path, ["search", key], [*self.overrides])

    def _refuse_no_setting(self, key: str) -> None:
        allowed = self._allowed()
        if key in LEFT_ALONE:
            raise BadInput(f"{self.place(key)}: {key} cannot be searched: {LEFT_ALONE[key]}.")
        if key in CHANGE_THE_VALUE and self.recipe.kind == "standard":
            raise BadInput(
                f"{self.place(key)}: {key} cannot be searched for a standard recipe, whose "
                "validation values it makes incomparable; leave it out, or search a safety recipe."
            )
        if key.startswith(("data.", "scoring.")):
            raise BadInput(
                f"{self.place(key)}: {key} cannot be searched: all trials learn from the same cases "
                "and are compared on the same ones."
            )
        if own := self._of_the_recipe(key):
            raise BadInput(
                f"{self.place(key)}: {key} cannot be searched, since the recipe {self.recipe.name} "
                f"sets {own} itself; take it out of the recipe."
            )
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(allowed)}."
            raise BadInput(f"{self.place(key)}: {shortened(key)!r} is no setting; {meant}")

    def _refuse_value(self, key: str, value: Value) -> None:
        try:
            grid = self.grid_with({key: value})
        except ValidationError as error:
            raise BadInput(
                f"{self.place(key)}: {key} cannot be {canonical_json(value)}: {reason(error)}."
            ) from error
        is_real = isinstance(value, float) and isinstance(self.settings[key], Range)
        if is_real and isinstance(_value_in(grid, key), int):
            raise BadInput(
                f"{self.place(key)}: {key} takes whole numbers; write the ends of its range without "
                "a point, e.g. { low = 4, high = 32 }."
            )

    def _of_the_recipe(self, key: str) -> str | None:
        """The setting by which the recipe replaces this one of the grid, if it does."""
        section, _, name = key.partition(".")
        own = {"training": name, "prompt": "prompt"}.get(section)
        replaced = own is not None and getattr(self.recipe, own, None) is not None
        return own if replaced and own in (*OVERRIDES, "prompt") else None

    def _allowed(self) -> list[str]:
        sections = {name: getattr(self.grid, name) for name in SECTIONS[1:]}
        keys = (
            f"{section}.{name}"
            for section, spec in {"recipe": self.recipe, **sections}.items()
            for name in type(spec).model_fields
        )
        return [key for key in keys if key not in LEFT_ALONE]


def _value_in(grid: Grid, key: str) -> Value:
    """The value of a setting in a grid with one recipe."""
    section, _, name = key.partition(".")
    spec = grid.recipes[0] if section == "recipe" else getattr(grid, section)
    return getattr(spec, name)


def _changed(spec: Spec, values: Values) -> Spec:
    return type(spec).model_validate({**spec.model_dump(exclude_unset=True), **values})


def _size(searched: Searched) -> float:
    if not isinstance(searched, Range):
        return len(searched)
    whole = isinstance(searched.low, int) and isinstance(searched.high, int)
    return searched.high - searched.low + 1 if whole else math.inf


def _contains(searched: Searched, value: Value) -> bool:
    if isinstance(searched, Range):
        return isinstance(value, int | float) and searched.low <= value <= searched.high
    return canonical_json(value) in map(canonical_json, searched)
