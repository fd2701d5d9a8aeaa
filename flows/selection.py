"""Which experiments of a grid to run, or to search a recipe for, and what is refused before they
start: cases that cannot be used, and weights that are not available. Without Prefect, so that the
commands refuse in a moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.splits import check_examples
from tasks.grids.grid import grid_path, known_models, load_grid, where
from tasks.models.sizes import is_known, known_shape, refuse_misfits
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
from tasks.search.space import Space
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
    """Which cells of a grid to keep: parameters of the flow `sweep`. None keeps all; `limit` keeps
    the first so many of the rest.
    """

    models: Sequence[str] | None = None
    bits: Sequence[int] | None = None
    recipes: Sequence[str] | None = None
    limit: int | None = None
    precisions: Sequence[str] | None = None
    cells: Sequence[str] | None = None

    @classmethod
    def to_one(cls, model: str | None, bits: int | None, recipe: str | None) -> Narrowing:
        """One model, bit width or recipe, where they are named."""
        return cls(
            None if model is None else [model],
            None if bits is None else [bits],
            None if recipe is None else [recipe],
        )


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
    grid: str, overrides: list[str] | None = None, narrowing: Narrowing | None = None
) -> Selection:
    """Read a grid and keep the cells that `narrowing` asks for, in the grid's order.

    A base model that the project knows may be named even if the grid does not list it. Raises
    BadInput for a model, precision, recipe or limit that leaves nothing to run.
    """
    only = narrowing or Narrowing()
    settings = load_grid(grid, overrides)
    base_models = known_models(settings)
    _refuse_unknown(only, settings, base_models)

    if only.models:
        settings = settings.model_copy(update={"models": tuple(dict.fromkeys(only.models))})
    refuse_misfits_of(settings, base_models)

    precisions = [*(only.precisions or ()), *(of_bits(bits).name for bits in only.bits or ())]
    cells = [
        spec
        for spec in experiments(settings, base_models)
        if (not precisions or spec.precision.name in precisions)
        and (not only.recipes or spec.recipe.name in only.recipes)
        and (not only.cells or spec.cell_id in only.cells)
    ]
    if not cells:
        raise BadInput(f"The grid {settings.name} has none of the experiments {only.cells}.")

    return Selection(settings, cells[: only.limit])


def _refuse_unknown(only: Narrowing, grid: Grid, base_models: dict[str, BaseModelSpec]) -> None:
    for name in only.models or ():
        if name not in base_models:
            raise BadInput(
                f"--model {name} is not a known base model; known are "
                f"{', '.join(sorted(base_models))}."
            )

    names = [precision.name for precision in grid.compared]
    plain = [name.removesuffix("bit") for name in names if name.endswith("bit")]
    for kind, requested, available in (
        ("bits", map(str, only.bits or ()), plain or names),
        ("precision", only.precisions or (), names),
        ("recipe", only.recipes or (), [recipe.name for recipe in grid.recipes]),
    ):
        for value in requested:
            if value not in available:
                raise BadInput(
                    f"The grid {grid.name} has no {kind} {value}; it has {', '.join(available)}."
                )

    if only.limit is not None and only.limit < 1:
        raise BadInput(f"--limit {only.limit} leaves nothing to run; give 1 or more.")


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

    reasons = []
    for name, sources in availabilities(models, root).items():
        for source, state in sources:
            if is_offered(state) or is_unanswered(state):
                return
            reasons.append(f"{name}: {source}: {state}")

    raise SourceUnavailable(
        f"No weights are available ({'; '.join(reasons)}); connect to a network, or list a source "
        "with kind = 'folder' in the grid."
    )


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
