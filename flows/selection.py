"""Which experiments of a grid to run, and what is refused before they start: cases that cannot be
used, and weights that are not available.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.splits import check_examples
from tasks.grids.grid import known_models, load_grid
from tasks.models.model_shape import ModelShape, is_known, known_shape
from tasks.models.sizes import refuse_misfits
from tasks.models.sources.fetch import (
    availabilities,
    is_offered,
    is_unanswered,
    shape_from_sources,
    stored,
)
from tasks.precisions import BUILT_IN, Precision, of_bits
from tasks.runtime.backend import refuse_unusable_mlx
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.home import home
from tasks.runtime.store import remove_all_abandoned
from tasks.spec import (
    BaseModelSpec,
    ExperimentSpec,
    Grid,
    PromptChoice,
    experiments,
    training_of_recipe,
)
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date
from warehouse.query import query_rows

# What the forms of the Prefect UI offer in their drop-downs, where another value can be typed: a
# parameter's type makes its form. A test holds them to what the project brings.
GridName = Literal["ablation", "demo", "paper", "smoke", "study", "study_gemma", "tuned"] | str
ModelName = (
    Literal["gemma-3-270m", "smollm2-135m", "smollm2-360m", "tiny-gemma3", "tiny-llama"] | str
)
PrecisionName = (
    Literal["bf16", "8bit", "6bit", "4bit", "3bit", "2bit", "mxfp8", "mxfp4", "nvfp4", "mixed_4_6"]
    | str
)
RecipeName = (
    Literal[
        "balanced_safe",
        "baseline",
        "both",
        "conservative",
        "cost",
        "fast",
        "high_capacity",
        "high_capacity_safe",
        "high_precision",
        "performance_safe",
        "plain",
        "quick",
        "quick_safe",
        "triage_optimized",
        "tuned",
        "tuned_safe",
        "ultra_safe",
        "weights",
    ]
    | str
)

# The last training of each cell: a later run of a cell, under whatever settings, stands for it.
LAST_RUNS = """
    SELECT cell_id, status
    FROM experiment JOIN landed ON landed.id = experiment.training_id
    QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY loaded_at DESC) = 1
"""


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


def failed_cells(selection: Selection) -> list[str]:
    """The ids of the selection's cells that failed when they last ran.

    Raises BadInput if there are none.
    """
    last: dict[str, str] = {}
    if warehouse_path().exists():
        bring_up_to_date()
        last = {str(cell): str(status) for cell, status in query_rows(LAST_RUNS).rows}

    ids = [spec.cell_id for spec in selection.cells]
    failed = [id for id in ids if last.get(id, "completed") != "completed"]
    if not failed:
        raise BadInput(
            f"No experiment of {selection.grid.name} failed when it last ran; leave out --failed "
            "to run what is not finished."
        )

    return failed


def check(selection: Selection, prompts: Iterable[PromptChoice] | None = None) -> Path:
    """Prepare the cases, which is quick, and ask whether the weights are available.

    Returns the folder of the cases. `prompts`: those whose examples must stand in no set, by
    default those of the selection.

    What killed sweeps left half-built is removed first.

    A sweep that can do a part of its work does that part. Raises BadInput for cases that cannot be
    used or for MLX as it is installed here, or SourceUnavailable if no base model of the selection
    is available.
    """
    refuse_unusable_mlx()
    data = check_cases(selection, prompts)
    refuse_without_weights(selection.models, home())
    return data


def check_cases(selection: Selection, prompts: Iterable[PromptChoice] | None = None) -> Path:
    """The part of `check` that a machine needs which computes nothing itself: no weights."""
    remove_all_abandoned(home())
    grid = selection.grid
    data = prepare_dataset(grid.data, home(), grid.evaluation_sets)
    check_examples(data, selection.prompts if prompts is None else prompts)
    return data


def refuse_without_weights(models: list[BaseModelSpec], root: Path) -> None:
    """Raise SourceUnavailable, with the reasons, if each source of every model says that it cannot
    give the weights.
    """
    if any(stored(model, root) for model in models):
        return

    answers = availabilities(models, root)
    states = [state for sources in answers.values() for _, state in sources]
    if any(is_offered(state) or is_unanswered(state) for state in states):
        return

    reasons = [
        f"{name}: {source}: {state}"
        for name, sources in answers.items()
        for source, state in sources
    ]
    raise SourceUnavailable(
        f"No weights are available ({'; '.join(reasons)}); connect to a network, or list a source "
        "with kind = 'folder' in the grid."
    )
