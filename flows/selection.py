"""Which experiments of a grid to run, or to search a recipe for, and what is refused before they
start: cases that cannot be used, and weights that are not available. Without Prefect, so that the
commands refuse in a moment.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.splits import check_examples
from tasks.grids.grid import GRIDS, grid_path, known_models, load_grid, where
from tasks.models.sizes import is_known, known_shape, refuse_misfits
from tasks.models.sources.fetch import (
    Log,
    availabilities,
    is_offered,
    is_unanswered,
    remedy,
    shape_from_sources,
    stored,
)
from tasks.precisions import BUILT_IN, Precision
from tasks.runtime.backend import refuse_unusable_mlx
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.home import home
from tasks.runtime.locks import remove_abandoned
from tasks.runtime.store import PLACES
from tasks.search.space import Space
from tasks.spec import (
    BaseModelSpec,
    ExperimentSpec,
    Grid,
    PromptChoice,
    Seed,
    experiments,
    training_of_recipe,
)
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date
from warehouse.query import query_rows


def _offered(names: Iterable[str]) -> WithJsonSchema:
    """The drop-down of a form of the Prefect UI, in which another value can be typed, too."""
    return WithJsonSchema(
        {"anyOf": [{"type": "string", "enum": sorted(names)}, {"type": "string"}]}
    )


_RECIPES = {
    recipe["name"]
    for path in GRIDS.glob("*.toml")
    for recipe in tomllib.loads(path.read_text(encoding="utf-8"))["recipe"]
}
GridName = Annotated[str, _offered(path.stem for path in GRIDS.glob("*.toml"))]
ModelName = Annotated[str, _offered(known_models())]
PrecisionName = Annotated[str, _offered(BUILT_IN)]
RecipeName = Annotated[str, _offered(_RECIPES)]

# The last training of each cell: a later run of a cell, under whatever settings, stands for it.
LAST_RUNS = """
    SELECT cell_id, status
    FROM experiment JOIN landed ON landed.id = experiment.training_id
    QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY loaded_at DESC) = 1
"""


class Narrowing(BaseModel):
    """Which cells of a grid to keep; a key that is not given keeps all. These are the options of
    `triage sweep`, a part of the form of the flow `sweep`, and what a plan is made for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[ModelName] | None = Field(default=None, description="only these base models")
    bits: list[Literal[4, 8] | int] | None = Field(
        default=None, description="only these bit widths: 4 or 8"
    )
    precisions: list[PrecisionName] | None = Field(
        default=None, description="only these precisions of the grid, e.g. bf16 or mxfp4"
    )
    recipes: list[RecipeName] | None = Field(
        default=None, description="only these recipes of the grid"
    )
    seeds: list[Seed] | None = Field(default=None, description="only these seeds of the grid")
    cells: list[str] | None = Field(
        default=None,
        description="only these experiments, e.g. smollm2-135m-4bit-baseline-s42",
    )
    limit: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="only the first so many of the rest"
    )


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


def select(
    grid: str, overrides: list[str] | None = None, only: Narrowing = EVERYTHING
) -> Selection:
    """Read a grid and keep the cells that `only` asks for, in the grid's order.

    A base model that the project knows may be named even if the grid does not list it. Raises
    BadInput for a model, precision, recipe or limit that leaves nothing to run.
    """
    settings = load_grid(grid, overrides)
    base_models = known_models(settings)
    _refuse_unknown(only, settings, base_models)

    if only.models:
        settings = settings.model_copy(update={"models": tuple(dict.fromkeys(only.models))})
    refuse_misfits_of(settings, base_models)

    precisions = [*(only.precisions or ()), *(f"{bits}bit" for bits in only.bits or ())]
    every = list(experiments(settings, base_models))
    if unknown := sorted({*(only.cells or ())} - {spec.cell_id for spec in every}):
        raise BadInput(
            f"The grid {settings.name} has no experiment {unknown[0]}; `triage sweep {grid} --plan` "
            "names them."
        )

    cells = [
        spec
        for spec in every
        if (not precisions or spec.precision.name in precisions)
        and (not only.recipes or spec.recipe.name in only.recipes)
        and (not only.seeds or spec.seed in only.seeds)
        and (not only.cells or spec.cell_id in only.cells)
    ]
    if not cells:
        asked = only.model_dump(exclude_none=True)
        raise BadInput(
            f"The grid {settings.name} has no experiment of all of {asked}; leave out one of them."
        )

    return Selection(settings, cells[: only.limit])


def _refuse_unknown(only: Narrowing, grid: Grid, base_models: dict[str, BaseModelSpec]) -> None:
    names = [precision.name for precision in grid.compared]
    plain = [name.removesuffix("bit") for name in names if name.endswith("bit")]
    seeds = [str(seed) for seed in dict.fromkeys(c.seed for c in experiments(grid, base_models))]
    for kind, requested, available in (
        # One that the project knows, too.
        ("model", only.models or (), sorted(base_models)),
        ("bits", map(str, only.bits or ()), plain or names),
        ("precision", only.precisions or (), names),
        ("recipe", only.recipes or (), [recipe.name for recipe in grid.recipes]),
        ("seed", map(str, only.seeds or ()), seeds),
    ):
        for value in requested:
            if value not in available:
                raise BadInput(
                    f"The grid {grid.name} has no {kind} {value}; there are {', '.join(available)}."
                )


def moves_of(
    grid: Grid, spec: ExperimentSpec, variants: Collection[tuple[str, str]]
) -> list[Precision]:
    """The precisions other than its own at which an adapter is scored too, if the grid moves it:
    those that the grid names, or 8 bits for 4 and 4 for 8, where the sweep has that variant.

    `variants`: model and precision of each variant of the sweep.
    """
    scoring = grid.scoring
    if scoring.moved_from and spec.precision.name not in scoring.moved_from:
        return []
    if scoring.moved_seeds and spec.seed not in scoring.moved_seeds:
        return []
    if grid.moved_to is not None:
        return [precision for precision in grid.moved_to if precision.name != spec.precision.name]
    other = {"4bit": "8bit", "8bit": "4bit"}.get(spec.precision.name)
    return [BUILT_IN[other]] if other and (spec.model.name, other) in variants else []


def refuse_misfits_of(grid: Grid, base_models: dict[str, BaseModelSpec]) -> None:
    """Refuse, before any download, settings that do not fit a model whose shape is known."""
    defined_by_grid = {model.name for model in grid.base_models}
    precisions = [*grid.compared, *(grid.moved_to or ())]
    for name in grid.models:
        is_built_in = is_known(name) and name not in defined_by_grid
        shape = known_shape(name) if is_built_in else shape_from_sources(base_models[name], home())
        if shape is None:
            continue

        for recipe in grid.recipes:
            training = training_of_recipe(grid, recipe)
            try:
                refuse_misfits(name, shape, training, precisions)
            except BadInput as error:
                if training == grid.training:
                    raise
                raise BadInput(f"Recipe {recipe.name}: {error}") from error


def failed_cells(selection: Selection) -> list[str]:
    """The ids of the selection's cells that failed when they last ran.

    Raises BadInput if there are none.
    """
    last_failed: set[object] = set()
    if warehouse_path().exists():
        bring_up_to_date()
        last_failed = {cell for cell, status in query_rows(LAST_RUNS).rows if status != "completed"}

    failed = [spec.cell_id for spec in selection.cells if spec.cell_id in last_failed]
    if not failed:
        raise BadInput(
            f"No experiment of {selection.grid.name} failed when it last ran; leave out --failed "
            "to run what is not finished."
        )

    return failed


def check(
    selection: Selection,
    prompts: Iterable[PromptChoice] | None = None,
    say: Log = lambda line: None,
) -> Path:
    """Prepare the cases, and ask whether the weights are available; returns the folder of the cases.

    `prompts`: those whose examples must stand in no set, by default those of the selection. Raises
    BadInput for cases that cannot be used or for MLX as it is installed here, or SourceUnavailable
    if no base model of the selection is available: a sweep that can do a part of its work does that
    part. `say`: see refuse_without_weights.
    """
    refuse_unusable_mlx()
    data = check_cases(selection, prompts)
    refuse_without_weights(selection.models, home(), say)
    return data


def check_cases(selection: Selection, prompts: Iterable[PromptChoice] | None = None) -> Path:
    """The part of `check` that a machine needs which computes nothing itself: no weights. What killed
    sweeps left half-built is removed first.
    """
    remove_abandoned(home(), *PLACES)
    grid = selection.grid
    data = prepare_dataset(grid.data, home(), grid.evaluation_sets)
    check_examples(data, selection.prompts if prompts is None else prompts)
    return data


def refuse_without_weights(models: list[BaseModelSpec], root: Path, say: Log) -> None:
    """Raise SourceUnavailable, with the reasons, if no model is stored and no source offers one, or
    if the first source of one fails that takes no other; `say` where another takes its place.
    """
    absent = {model.name: model for model in models if stored(model, root) is None}
    can_train = len(absent) < len(models)
    reasons = []
    for name, sources in availabilities(absent.values(), root, patiently=True).items():
        offers = [source for source, state in sources if is_offered(state) or is_unanswered(state)]
        can_train |= bool(offers)
        reasons += [f"{name}: {source}: {state}" for source, state in sources]
        first, reason = sources[0]
        if not (absent[name].any_weights or is_offered(reason)):
            problem = f"No weights for {name} are available ({first}: {reason})"
            raise SourceUnavailable(f"{problem}; {remedy(absent[name])}")
        if offers and first != offers[0]:
            say(f"Weights of {name} come from {offers[0]}, not from {first}: {reason}.")

    if not can_train:
        problem = f"No weights are available ({'; '.join(reasons)})"
        raise SourceUnavailable(f"{problem}; {remedy(models[0])}")


def set_up(grid: str, overrides: list[str] | None, narrowing: Narrowing) -> Space:
    """The space of a grid's first cell among those that `narrowing` leaves.

    Raises BadInput for what cannot be searched.
    """
    selection = select(grid, overrides, narrowing)

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
    one_cell = selection.grid.model_copy(
        update={
            "models": (cell.model.name,),
            "seeds": (cell.seed,),
            "bits": None,
            "precisions": (cell.precision.name,),
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
