"""The space of a search: the settings of one cell that vary, and what they aim at."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.grids.grid import reason, shortened
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
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
    short_digest,
)

Value = Any  # of a setting, as TOML gives it
Values = Mapping[str, Value]  # by dotted key, e.g. `recipe.rank`

SEARCH_VERSION = 1  # of what a stored trial means
SECTIONS = ("recipe", "training", "prompt")

# Settings that decide no training, and so no trial.
NO_PART_OF_TRAINING = {
    "recipe.name",
    "recipe.target_ed_recall",
    "recipe.primary_rule",
    "training.memory",
    "training.report_every",
}
# Settings that a search leaves as they are: these, and what trials have in common, which is what they
# aim at, at which updates they can pause, and the weights and the seed.
LEFT_ALONE = NO_PART_OF_TRAINING | {
    "recipe.kind",
    "recipe.iterations",
    "recipe.evaluate_every",
    "recipe.select_by",
    "recipe.prompt",  # the keys of [prompt] are searched one by one
    "recipe.seeds",
    "training.group_size",
    "training.evaluate_every",
    "training.patience",
    "training.optimizer",
    "training.mask_prompt",
}
# Settings that change what the validation value measures, so that it compares no two trials.
CHANGE_THE_VALUE = ("prompt.answers", "recipe.label_weight", "recipe.label_smoothing")
OF_SAFETY = ("recipe.cost_weight", "recipe.cost_matrix", "recipe.class_weights")


@dataclass(frozen=True)
class Objective:
    """What a search aims at on `valid`: "validation value", "macro-F1", or "ED recall" at an
    `over_triage`.
    """

    metric: str
    over_triage: float | None = None

    @property
    def name(self) -> str:
        if self.over_triage is None:
            return self.metric
        return f"{self.metric} at over-triage {self.over_triage:g}"

    @property
    def is_higher_better(self) -> bool:
        return self.metric != "validation value"


@dataclass(frozen=True)
class Space:
    """The searched settings of a grid that has one base model, precision, recipe and seed."""

    grid: Grid
    search: Search
    model: BaseModelSpec

    @property
    def settings(self) -> Mapping[str, Searched]:
        """Range or choices of each searched setting."""
        return self.search.settings

    @property
    def recipe(self) -> Recipe:
        """The recipe whose settings vary."""
        return self.grid.recipes[0]

    @cached_property
    def cell(self) -> ExperimentSpec:
        """The cell as the grid has it."""
        return self.experiment({})

    @cached_property
    def objective(self) -> Objective:
        """What chooses the best adapter; of a safety recipe ED recall, since its validation values
        weigh that by settings that vary.
        """
        if self.recipe.kind == "safety":
            return Objective("ED recall", self.search.over_triage)
        return Objective("macro-F1" if self.recipe.select_by == "macro_f1" else "validation value")

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The updates at which a trial pauses, each with a checkpoint, and its last update. Raises
        BadInput where there is no checkpoint before the end.
        """
        iterations = self.cell.recipe.iterations
        every = self.cell.training.evaluate_every
        nearest = {max(1, round(share * iterations / every)) for share in self.search.rungs}
        pauses = [number * every for number in sorted(nearest) if number * every < iterations]
        if not pauses:
            lower = max(1, iterations // 8)
            raise BadInput(
                f"training.evaluate_every = {every} leaves no checkpoint before the end of "
                f"{iterations} updates at which trials could pause; lower it, e.g. with --set "
                f"training.evaluate_every={lower}."
            )

        return (*pauses, iterations)

    @property
    def folder(self) -> Path:
        """Where the trials and the winner's grid are stored."""
        return home() / "searches" / f"{self.grid.name}-{self.cell.cell_id}"

    @cached_property
    def search_id(self) -> str:
        """Grid, cell and the digest of what else decides the trials."""
        search = self.search.model_dump(mode="json", exclude_none=True)
        ranges = search.pop("settings")
        identity = {"version of the search": SEARCH_VERSION, "search": search | ranges}

        for name in SECTIONS:
            values = getattr(self.cell, name).model_dump(mode="json", exclude_defaults=True)
            ignored = self.settings.keys() | NO_PART_OF_TRAINING
            identity[name] = {k: v for k, v in values.items() if f"{name}.{k}" not in ignored}

        return f"{self.grid.name}-{self.cell.cell_id}-s{short_digest(identity)}"

    def grid_with(self, values: Values) -> Grid:
        """The grid with these values. Raises ValidationError for a value that a setting refuses."""
        changes: dict[str, Any] = {}
        for section in {key.partition(".")[0] for key in values}:
            spec = _section_of(self.grid, section)
            new_values = spec.model_dump(exclude_unset=True)
            for key, value in values.items():
                if key.startswith(f"{section}."):
                    new_values[key.removeprefix(f"{section}.")] = value
            changes[section] = type(spec).model_validate(new_values)

        if "recipe" in changes:
            changes["recipes"] = (changes.pop("recipe"),)
        return self.grid.model_copy(update=changes)

    def experiment(self, values: Values) -> ExperimentSpec:
        """The experiment that these values make of the grid's one cell."""
        (spec,) = experiments(self.grid_with(values), {self.model.name: self.model})
        return spec

    def prompts(self) -> list[PromptChoice]:
        """The grid's prompt, and those that a trial may have."""
        searched = [(key, value) for key, value in self.samples() if key.startswith("prompt.")]
        return [*self.grid.prompts, *(self.grid_with({key: v}).prompt for key, v in searched)]

    def starting_values(self) -> Values | None:
        """The grid's own values, if they lie in the space: the first trial."""
        values: dict[str, Value] = {}
        for key, searched in self.settings.items():
            own_value = _value_in(self.grid, key)
            candidates: Iterable[Value] = ()
            if not isinstance(searched, Range):
                candidates = searched
            elif isinstance(own_value, int | float) and searched.low <= own_value <= searched.high:
                candidates = (int(own_value) if is_whole(searched) else own_value,)

            # Compared as the grid reads them: 20 is 20.0, and a list is a tuple.
            equal = [c for c in candidates if _value_in(self.grid_with({key: c}), key) == own_value]
            if not equal:
                return None
            values[key] = equal[0]

        return values

    def samples(self) -> Iterator[tuple[str, Value]]:
        """The ends of each range, and every choice: what a setting that refuses a value refuses."""
        for key, searched in self.settings.items():
            if not isinstance(searched, Range):
                yield from ((key, choice) for choice in searched)
                continue

            yield key, searched.low
            yield key, searched.high
            if not is_whole(searched):
                # A setting of whole numbers would take the ends 4.0 and 8.0.
                yield key, searched.low + 0.37 * (searched.high - searched.low)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Keys that cannot be searched or have a value that the setting refuses, each with what is
        wrong. Raises BadInput where trials could not pause.
        """
        allowed = [
            f"{section}.{name}"
            for section in SECTIONS
            for name in type(_section_of(self.grid, section)).model_fields
            if f"{section}.{name}" not in LEFT_ALONE
        ]
        for key in self.settings:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
                there_are = f"there are {', '.join(allowed)}."
                suggestion = f"did you mean {near[0]}?" if near else there_are
                yield key, f"{shortened(key)!r} cannot be searched; {suggestion}"
            elif self._changes_nothing(key):
                yield (
                    key,
                    (
                        f"{key} cannot be searched: it changes nothing in the recipe "
                        f"{self.recipe.name}, which does not use it or has a setting in its place."
                    ),
                )
            elif key in CHANGE_THE_VALUE and self.objective.metric == "validation value":
                yield (
                    key,
                    (
                        f"{key} cannot be searched: it makes the validation values of a standard recipe "
                        'incomparable; leave it out, give the recipe select_by = "macro_f1", or search '
                        "a safety recipe."
                    ),
                )

        for key, value in self.samples():
            try:
                self.grid_with({key: value})
            except ValidationError as error:
                yield key, f"{key} cannot be {canonical_json(value)}: {reason(error)}."

        _ = self.rungs  # refused where there is none

    def _changes_nothing(self, key: str) -> bool:
        """Whether a standard recipe ignores a setting, or a setting of the recipe replaces it."""
        if key in OF_SAFETY:
            return self.recipe.kind == "standard"
        section, _, name = key.partition(".")
        in_recipe = "prompt" if section == "prompt" else name
        if section == "recipe" or in_recipe not in (*OVERRIDES, "prompt"):
            return False
        return getattr(self.recipe, in_recipe) is not None or f"recipe.{in_recipe}" in self.settings


def is_whole(searched: Range) -> bool:
    """Whether the range is one of whole numbers."""
    return isinstance(searched.low, int) and isinstance(searched.high, int)


def _value_in(grid: Grid, key: str) -> Value:
    """The value of a setting in a grid with one recipe."""
    section, _, name = key.partition(".")
    return getattr(_section_of(grid, section), name)


def _section_of(grid: Grid, section: str) -> Strict:
    """The table of a grid with one recipe."""
    spec: Strict = grid.recipes[0] if section == "recipe" else getattr(grid, section)
    return spec
