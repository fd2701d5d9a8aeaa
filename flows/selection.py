"""Which experiments of a grid to run: the grid's cells, narrowed by model, bits, recipe and number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.grid import known_models, load_grid
from tasks.models.expected_sizes import expected_sizes, is_known, known_config
from tasks.runtime.errors import BadInput
from tasks.spec import BaseModelSpec, ExperimentSpec, Grid, experiments


@dataclass(frozen=True)
class Selection:
    """A grid and its chosen cells, in the order in which they run."""

    grid: Grid
    cells: list[ExperimentSpec] = field(default_factory=list)

    @property
    def models(self) -> list[BaseModelSpec]:
        """The base models of the chosen cells, each once."""
        return list({spec.model.name: spec.model for spec in self.cells}.values())


def select(
    grid: str, overrides: list[str] | None = None, models: list[str] | None = None, bits: Sequence[int] | None = None,
    recipes: list[str] | None = None, limit: int | None = None,
) -> Selection:  # fmt: skip
    """Read a grid and narrow it. A model that the grid does not list but the project knows may be named too."""
    chosen = load_grid(grid, overrides)
    known = known_models(chosen)
    for name in models or []:
        if name not in known:
            raise BadInput(
                f"--model {name} is not a known base model; known are {', '.join(sorted(known))}."
            )
    if models:
        chosen = chosen.model_copy(update={"models": tuple(dict.fromkeys(models))})
    cells = list(experiments(chosen, known))
    for what, wanted, names in (
        ("bits", bits, chosen.bits),
        ("recipe", recipes, [r.name for r in chosen.recipes]),
    ):
        for value in wanted or []:
            if value not in names:
                raise BadInput(
                    f"The grid {chosen.name} has no {what} {value}; it has {', '.join(map(str, names))}."
                )
    _refuse_group_size(chosen)
    cells = [
        c
        for c in cells
        if (not bits or c.bits in bits) and (not recipes or c.recipe.name in recipes)
    ]
    if limit is not None and limit < 1:
        raise BadInput(f"--limit {limit} leaves nothing to run; give 1 or more.")
    return Selection(chosen, cells[:limit])


def _refuse_group_size(grid: Grid) -> None:
    """Tell before anything is fetched where a group size does not divide the rows of a model whose shape is known."""
    size, own = grid.training.group_size, {model.name for model in grid.base_models}
    for name in grid.models:
        if name in own or not is_known(name):
            continue
        try:
            expected_sizes(known_config(name), 4, size)
        except BadInput as error:
            raise BadInput(
                f"training.group_size = {size} does not fit {name}: {error} Choose 64 or 32."
            ) from error
