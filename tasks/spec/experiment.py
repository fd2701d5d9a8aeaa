"""Experiments: the cells of a grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import model_validator

from tasks.precisions import Precision, with_precision_for_bits
from tasks.spec.base import OMITTED_AT_DEFAULT, Strict
from tasks.spec.base_models import BaseModelSpec
from tasks.spec.cases import Data
from tasks.spec.grid import Grid
from tasks.spec.prompt import PromptChoice
from tasks.spec.recipe import OVERRIDES, Recipe
from tasks.spec.scoring import Scoring
from tasks.spec.training import Training


class ExperimentSpec(Strict):
    """Variant x recipe x seed on one dataset.

    What a recipe sets for itself stands in `training`, `prompt` and `seed`, and no longer in
    `recipe`: see `experiments`.
    """

    model: BaseModelSpec
    precision: Precision
    recipe: Recipe
    seed: int
    training: Training
    data: Data
    scoring: Scoring
    prompt: Annotated[PromptChoice, OMITTED_AT_DEFAULT] = PromptChoice()

    @model_validator(mode="before")
    @classmethod
    def _bits_name_a_precision(cls, values: Any) -> Any:
        """Experiments of before, and tests, give the bits of a plain precision."""
        return with_precision_for_bits(values)

    @property
    def bits(self) -> int | None:
        """Bits of a value; None where the weights are not quantised."""
        return self.precision.bits

    @property
    def cell_id(self) -> str:
        """Readable id from the grid alone, known before any download."""
        return f"{self.model.name}-{self.precision.name}-{self.recipe.name}-s{self.seed}"

    @property
    def title(self) -> str:
        """The cell for people, e.g. `smollm2-135m 4bit ultra_safe s42`."""
        return f"{self.model.name} {self.precision.name} {self.recipe.name} s{self.seed}"


def experiments(grid: Grid, models: dict[str, BaseModelSpec]) -> Iterator[ExperimentSpec]:
    """The cells of a grid, variant by variant, so that a variant's shared
    work is done once and then used.
    """
    runs = [(recipe, seed) for recipe in grid.recipes for seed in grid.seeds_of(recipe)]
    for name, precision, (recipe, seed) in itertools.product(grid.models, grid.compared, runs):
        yield ExperimentSpec(
            model=models[name],
            precision=precision,
            recipe=recipe.model_copy(update=dict.fromkeys((*OVERRIDES, "prompt", "seeds"))),
            seed=seed,
            training=training_of_recipe(grid, recipe),
            data=grid.data,
            scoring=grid.scoring,
            prompt=recipe.prompt or grid.prompt,
        )


def training_of_recipe(grid: Grid, recipe: Recipe) -> Training:
    """The settings of a recipe's trainings: the grid's, but for those that it sets for itself.

    So an id is the same wherever a setting stands.
    """
    of_recipe = {name: getattr(recipe, name) for name in OVERRIDES}
    update = {name: value for name, value in of_recipe.items() if value is not None}
    return grid.training.model_copy(update=update)
