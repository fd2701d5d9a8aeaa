"""Which experiments of a grid to run: the grid's cells, narrowed by
model, precision, recipe and number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.grids.grid import known_models, load_grid
from tasks.models.model_shape import ModelShape, is_known, known_shape
from tasks.models.shape_check import refuse_misfits, shape_from_sources
from tasks.precisions import BUILT_IN, Precision, of_bits
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import (
    BaseModelSpec,
    ExperimentSpec,
    Grid,
    PromptChoice,
    experiments,
    training_of_recipe,
)


@dataclass(frozen=True)
class Narrowing:
    """Which cells of a grid to keep. An empty field keeps all; `limit` keeps the first so many of
    the rest.
    """

    models: Sequence[str] = ()
    bits: Sequence[int] = ()
    recipes: Sequence[str] = ()
    limit: int | None = None
    precisions: Sequence[str] = ()
    cells: Sequence[str] = ()

    @classmethod
    def to_one(cls, model: str | None, bits: int | None, recipe: str | None) -> Narrowing:
        """One model, bit width or recipe, where they are named."""
        return cls(
            [model] if model else (),
            [bits] if bits is not None else (),
            [recipe] if recipe else (),
        )

    @property
    def precision_names(self) -> set[str]:
        """The precisions to keep, whichever way they were named; empty for all."""
        return {*self.precisions, *(of_bits(bits).name for bits in self.bits)}

    def parameters(self) -> dict[str, Any]:
        """The narrowing as parameters of the flow `sweep`: lists, and None for what keeps all."""
        return {
            "models": list(self.models) or None,
            "bits": list(self.bits) or None,
            "recipes": list(self.recipes) or None,
            "limit": self.limit,
            "precisions": list(self.precisions) or None,
            "cells": list(self.cells) or None,
        }


EVERYTHING = Narrowing()


@dataclass(frozen=True)
class Selection:
    """A grid and its chosen cells, in the order in which they run."""

    grid: Grid
    cells: list[ExperimentSpec] = field(default_factory=list)

    @property
    def models(self) -> list[BaseModelSpec]:
        """The base models of the chosen cells, each once."""
        return list({spec.model.name: spec.model for spec in self.cells}.values())

    @property
    def prompts(self) -> list[PromptChoice]:
        """The prompts of the chosen cells, each once."""
        return [
            prompt for prompt in self.grid.prompts if any(c.prompt == prompt for c in self.cells)
        ]

    @property
    def variants(self) -> list[tuple[str, str]]:
        """Model and precision of the chosen cells, each once, in their order."""
        return list(dict.fromkeys((spec.model.name, spec.precision.name) for spec in self.cells))

    def with_seed(self, seed: int) -> Selection:
        """The cells of one seed. Raises BadInput for a seed that the grid does not have."""
        available = sorted({spec.seed for spec in self.cells})
        if seed not in available:
            seeds = ", ".join(map(str, available))
            raise BadInput(f"The grid {self.grid.name} has no seed {seed}; it has {seeds}.")
        return replace(self, cells=[spec for spec in self.cells if spec.seed == seed])


def select(
    grid: str, overrides: list[str] | None = None, narrowing: Narrowing = EVERYTHING
) -> Selection:
    """Read a grid and keep the cells that `narrowing` asks for, in the grid's order.

    A base model that the project knows may be named even if the grid does not list it. Raises
    BadInput for a model, precision, recipe or limit that leaves nothing to run.
    """
    settings = load_grid(grid, overrides)
    base_models = known_models(settings)
    _refuse_unknown(narrowing, settings, base_models)

    if narrowing.models:
        settings = settings.model_copy(update={"models": tuple(dict.fromkeys(narrowing.models))})
    refuse_misfits_of(settings, base_models)

    cells = [
        spec
        for spec in experiments(settings, base_models)
        if (not narrowing.precision_names or spec.precision.name in narrowing.precision_names)
        and (not narrowing.recipes or spec.recipe.name in narrowing.recipes)
        and (not narrowing.cells or spec.cell_id in narrowing.cells)
    ]
    if not cells:
        raise BadInput(f"The grid {settings.name} has none of the experiments {narrowing.cells}.")

    return Selection(settings, cells[: narrowing.limit])


def _refuse_unknown(
    narrowing: Narrowing, grid: Grid, base_models: dict[str, BaseModelSpec]
) -> None:
    for name in narrowing.models:
        if name not in base_models:
            raise BadInput(
                f"--model {name} is not a known base model; known are "
                f"{', '.join(sorted(base_models))}."
            )

    names = [precision.name for precision in grid.compared]
    plain = {name.removesuffix("bit"): name for name in names if name.endswith("bit")}
    _refuse_absent(grid, "bits", [str(bits) for bits in narrowing.bits], list(plain) or names)
    _refuse_absent(grid, "precision", narrowing.precisions, names)
    _refuse_absent(grid, "recipe", narrowing.recipes, [recipe.name for recipe in grid.recipes])
    if narrowing.limit is not None and narrowing.limit < 1:
        raise BadInput(f"--limit {narrowing.limit} leaves nothing to run; give 1 or more.")


def _refuse_absent(
    grid: Grid, kind: str, requested: Sequence[str], available: Sequence[str]
) -> None:
    for value in requested:
        if value not in available:
            names = ", ".join(available)
            raise BadInput(f"The grid {grid.name} has no {kind} {value}; it has {names}.")


def moves_of(
    grid: Grid, spec: ExperimentSpec, variants: Collection[tuple[str, str]]
) -> list[Precision]:
    """The precisions other than its own at which an adapter is scored too: those that the grid
    names, or 8 bits for 4 and 4 for 8, where the sweep has that variant.

    `variants`: model and precision of each variant of the sweep.
    """
    if grid.moved_to is not None:
        return [precision for precision in grid.moved_to if precision.name != spec.precision.name]
    other = {"4bit": "8bit", "8bit": "4bit"}.get(spec.precision.name)
    return [BUILT_IN[other]] if other and (spec.model.name, other) in variants else []


def refuse_misfits_of(grid: Grid, base_models: dict[str, BaseModelSpec]) -> None:
    """Refuse, before any download, settings that do not fit a model whose shape is known."""
    defined_by_grid = {model.name for model in grid.base_models}
    for name in grid.models:
        is_built_in = is_known(name) and name not in defined_by_grid
        shape = known_shape(name) if is_built_in else shape_from_sources(base_models[name], home())
        if shape is not None:
            _refuse_misfit_recipes(name, shape, grid)


def _refuse_misfit_recipes(model: str, shape: ModelShape, grid: Grid) -> None:
    precisions = [*grid.compared, *(grid.moved_to or ())]
    for recipe in grid.recipes:
        training = training_of_recipe(grid, recipe)
        try:
            refuse_misfits(model, shape, training, precisions)
        except BadInput as error:
            if training == grid.training:
                raise
            raise BadInput(f"Recipe {recipe.name}: {error}") from error
