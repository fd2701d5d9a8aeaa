"""A grid file: every model x precision x recipe x seed is one experiment, a cell of the grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks import precisions
from tasks.precisions import Precision
from tasks.spec.base import (
    FAMILIAR,
    KEPT,
    OMITTED_AT_DEFAULT,
    SCORING_VERSION,
    BaseModelSpec,
    Data,
    EachOnce,
    EvaluationSet,
    Name,
    Seed,
    Strict,
    short_digest,
)
from tasks.spec.recipe import OVERRIDES, CostMatrix, PromptChoice, Recipe, Search, Training

# A plan of so many takes half a minute; a study of the whole paper has 60.
MOST_EXPERIMENTS = 10_000
# Settings of `[scoring]` that decide no scores of a trained adapter.
OF_OTHER_STEPS = {
    "fidelity_cases",
    "move_adapters",
    "moved_from",
    "moved_seeds",
    "moved_passes",
    "untuned",
    "with_linear",
}
WITHOUT_CLAIM = "or leave out [primary] (--set primary=false)"


class Scoring(Strict):
    """How a trained adapter is scored and judged."""

    passes: int = Field(default=50, ge=2, le=1000, description="Monte Carlo dropout passes")
    mc_cases: Annotated[int, Field(ge=3)] | Literal["all"] = Field(
        default="all", description="test cases in the dropout passes, a stratified sample"
    )
    # At most ln 3, rounded up: the entropy of votes that three labels share evenly.
    review_entropy: float = Field(
        default=0.3, ge=0, le=1.0987, description="vote entropy in nats above which to flag a case"
    )
    cost_matrix: CostMatrix | None = Field(
        default=None, description="prices all decisions; without it that of `[safety]`"
    )
    conformal_miss_rate: float = Field(
        default=0.05, gt=0, lt=1, description="share of emergencies that conformal sets may miss"
    )
    generated_cases: int = Field(
        default=20, ge=0, le=10_000, description="number of test cases with a generated answer"
    )
    fidelity_cases: Annotated[int, Field(ge=3)] | Literal[0] = Field(
        default=100,
        description="number of test cases to compare with unquantised weights; 0: none",
    )
    move_adapters: bool | Annotated[tuple[str, ...], Field(min_length=1), EachOnce] = Field(
        default=False,
        description="also score each adapter on the other bit width (`true`), or on these"
        ' precisions, e.g. `["8bit", "mxfp4"]`, by its threshold and by one chosen again there',
    )
    moved_from: Annotated[
        tuple[str, ...] | None, Field(min_length=1), EachOnce, OMITTED_AT_DEFAULT
    ] = Field(default=None, description="move the adapters of these precisions alone")
    moved_seeds: Annotated[
        tuple[Seed, ...] | None, Field(min_length=1), EachOnce, OMITTED_AT_DEFAULT
    ] = Field(default=None, description="move the adapters of these seeds alone")
    moved_passes: bool = Field(
        default=True, description="also run the dropout passes of these adapters"
    )
    untuned: Annotated[bool, OMITTED_AT_DEFAULT] = Field(
        default=True, description="also score each variant before it is trained"
    )
    with_linear: Annotated[bool, OMITTED_AT_DEFAULT] = Field(
        default=False,
        description="also judge each trained model together with the linear baseline: by the product"
        " of their probabilities, and by rules of its own",
    )


Figure = Literal["accuracy", "ed_recall", "ed_f2", "macro_f1", "over_triage", "ed_auroc"]


class Primary(Strict):
    """The claim that a study is made for, fixed before its first evaluation.

    Accuracy, macro-F1 and AUROC count by the most probable label (rule `argmax`), the other figures
    by each model's own threshold (rule `target_recall`).
    """

    recipe: Name = Field(description="the recipe that the claim is about")
    base_model: Name = Field(description="the base model that the claim is about")
    figures: Annotated[tuple[Figure, ...], EachOnce] = Field(
        default=("accuracy", "ed_recall"), min_length=1, description="the figures that are claimed"
    )
    margin: float = Field(
        default=0.02, gt=0, le=0.2, description="loss that does not matter; 0.02: two points"
    )
    seeds: Annotated[tuple[Seed, ...] | None, EachOnce] = Field(
        default=None,
        min_length=1,
        description="two seeds or more, one where the side is moved; without it those that the recipe"
        " is trained with",
    )
    sides: Annotated[tuple[str, ...], EachOnce] = Field(
        default=("4bit", "8bit"),
        min_length=2,
        max_length=2,
        description="a precision and the one that it is compared with, e.g."
        ' `["mxfp4", "8bit"]`: adapters trained at 8 bits, and the same ones moved to mxfp4',
    )
    further_seeds: Annotated[tuple[Seed, ...], EachOnce, OMITTED_AT_DEFAULT] = Field(
        default=(),
        description="seeds of a sealed claim that take the place of those that diverge, and that join, all of"
        " them, where a figure has a chance below 80 % with `seeds`",
    )
    adjust: Annotated[Literal["none", "holm"], OMITTED_AT_DEFAULT] = Field(
        default="none",
        description="`holm`: a figure is not worse only if its one-sided p, adjusted for all claimed"
        " figures, is below 0.025",
    )
    sealed: Annotated[bool, OMITTED_AT_DEFAULT] = Field(
        default=False,
        description="show no figure of its models before all seeds are judged and `triage compare STUDY"
        " --open` has recorded that it is opened",
    )
    # What a claim of an earlier version is about.
    threshold: Annotated[Literal["kept", "chosen_again", "both"], OMITTED_AT_DEFAULT] = Field(
        default="kept",
        description="of moved adapters: judged by the threshold that they have, by one chosen again"
        " on calibration at the precision, or a sentence for each",
    )


class TimeLimit(Strict):
    """How long a step may take before it is ended and tried again, a training from its checkpoint.

    It decides no result.
    """

    factor: float = Field(default=10, ge=1, description="multiple of the plan's estimate")
    floor_seconds: float = Field(default=3600, gt=0, description="shortest limit")

    def seconds(self, expected_seconds: float) -> float:
        """The limit of a step that is expected to take `expected_seconds` seconds."""
        return max(self.floor_seconds, self.factor * expected_seconds)


class Grid(Strict):
    """A grid file: every model x precision x recipe x seed is one experiment."""

    read_apart = ("safety",)  # its values go into the safety recipes

    name: Name = Field(description="name of the study")
    models: Annotated[tuple[Name, ...], EachOnce] = Field(
        min_length=1, description="base models: built-in ones, or those of `[[base_model]]`"
    )
    weights: Literal["listed", "random"] = Field(
        default="listed", description="`random`: random weights of the real shapes"
    )
    allow_mirror: bool = Field(default=False, description="for all models, as in `[[base_model]]`")
    any_weights: bool = Field(  # itself decides nothing, and so is in no digest
        default=True, exclude=True, description="`false`: of each model's sources the first alone"
    )
    bits: Annotated[tuple[Literal[4, 8], ...] | None, EachOnce, OMITTED_AT_DEFAULT] = Field(
        default=None,
        min_length=1,
        description="bit widths to compare: `[4, 8]` is short for"
        ' `precisions = ["4bit", "8bit"]`; give exactly one of the two keys',
    )
    precisions: Annotated[tuple[str, ...] | None, EachOnce, OMITTED_AT_DEFAULT] = Field(
        default=None,
        min_length=1,
        description="precisions to compare, by name: "
        + ", ".join(f"`{name}`" for name in precisions.BUILT_IN)
        + ", or those of `[[precision]]`",
    )
    seeds: Annotated[tuple[Seed, ...], EachOnce] = Field(
        default=(42,), min_length=1, description="seeds; each repeats every experiment"
    )
    recipes: Annotated[tuple[Recipe, ...], EachOnce] = Field(
        min_length=1, alias="recipe", description="LoRA configurations"
    )
    training: Training = Field(default=Training(), description="settings of all trainings")
    data: Data = Field(default=Data(), description="the cases")
    scoring: Scoring = Field(default=Scoring(), description="settings of all evaluations")
    prompt: Annotated[PromptChoice, OMITTED_AT_DEFAULT] = Field(
        default=PromptChoice(), description="the instruction and the answer words"
    )
    time_limit: Annotated[TimeLimit, OMITTED_AT_DEFAULT] = Field(
        default=TimeLimit(), description="when a step counts as hanging; decides no experiment"
    )
    base_models: Annotated[tuple[BaseModelSpec, ...], EachOnce] = Field(
        default=(),
        alias="base_model",
        description="further base models; a built-in name is replaced",
    )
    further_precisions: Annotated[tuple[Precision, ...], EachOnce, OMITTED_AT_DEFAULT] = Field(
        default=(), alias="precision", description="further precisions; a built-in name is refused"
    )
    evaluation_sets: Annotated[tuple[EvaluationSet, ...], EachOnce] = Field(
        default=(), alias="evaluation_set", description="further sets to score"
    )
    search: Search | None = Field(default=None, description="what `triage search` varies")
    primary: Annotated[Primary | None, OMITTED_AT_DEFAULT] = Field(
        default=None, description="the claim that the study is made for; decides no experiment"
    )

    def seeds_of(self, recipe: Recipe) -> tuple[int, ...]:
        """The seeds that a recipe is trained with."""
        return recipe.seeds or self.seeds

    @property
    def prompts(self) -> list[PromptChoice]:
        """The prompts of its recipes, each once."""
        prompts: list[PromptChoice] = []
        for recipe in self.recipes:
            prompt = recipe.prompt or self.prompt
            if prompt not in prompts:
                prompts.append(prompt)
        return prompts

    @model_validator(mode="after")
    def _familiar_problems_are_learned(self) -> Grid:
        is_asked = any(entry.is_familiar for entry in self.evaluation_sets)
        if is_asked and self.data.source != "embedded":
            raise ValueError(
                f"evaluation_set: {FAMILIAR} is about the problems of the embedded train; leave it out "
                f"where data.source is {self.data.source!r}"
            )
        return self

    @model_validator(mode="after")
    def _precisions_are_known(self) -> Grid:
        if (self.bits is None) == (self.precisions is None):
            raise ValueError(
                "precisions: give exactly one of bits and precisions, e.g. "
                'precisions = ["bf16", "8bit", "4bit"]'
            )
        if taken := [
            one.name for one in self.further_precisions if one.name in precisions.BUILT_IN
        ]:
            raise ValueError(f"precision: the name {taken[0]} is built in; choose another")

        self._named("precisions", self.precisions or ())
        moves = self.scoring.move_adapters
        self._named("scoring.move_adapters", () if isinstance(moves, bool) else moves)
        self._named("scoring.moved_from", self.scoring.moved_from or ())
        return self

    def _named(self, key: str, names: tuple[str, ...]) -> tuple[Precision, ...]:
        further = {precision.name: precision for precision in self.further_precisions}
        table = precisions.BUILT_IN | further
        try:
            return tuple(precisions.named(name, table) for name in names)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    @property
    def compared(self) -> tuple[Precision, ...]:
        """The precisions that the grid trains at, whichever of its two keys names them."""
        if self.bits is not None:
            return tuple(precisions.of_bits(bits) for bits in self.bits)
        return self._named("precisions", self.precisions or ())

    @property
    def moved_to(self) -> tuple[Precision, ...] | None:
        """The precisions on which each adapter is scored too; None for the other bit width."""
        moves = self.scoring.move_adapters
        if isinstance(moves, bool):
            return None if moves else ()
        return self._named("scoring.move_adapters", moves)

    @property
    def primary_claim(self) -> Primary | None:
        """`[primary]`, with the seeds that its recipe is trained with where it names none."""
        if self.primary is None or self.primary.seeds is not None:
            return self.primary

        recipes = {recipe.name: recipe for recipe in self.recipes}
        seeds = self.seeds_of(recipes[self.primary.recipe])
        return self.primary.model_copy(update={"seeds": seeds})

    @property
    def registration(self) -> dict[str, Any] | None:
        """The primary claim as JSON, with all settings that decide its trainings and how they are judged:
        a study that changes one of them after results is said to have changed its claim.
        """
        claim = self.primary_claim
        if claim is None:
            return None

        (recipe,) = (recipe for recipe in self.recipes if recipe.name == claim.recipe)
        named = {
            precision.name: precision for precision in (*self.compared, *(self.moved_to or ()))
        }
        settings = {
            "recipe": recipe.model_dump(mode="json", exclude={*OVERRIDES, "prompt", "seeds"}),
            "training": training_of_recipe(self, recipe).model_dump(
                mode="json", exclude={"memory"}
            ),
            "prompt": (recipe.prompt or self.prompt).model_dump(mode="json"),
            "data": self.data.model_dump(mode="json"),
            "scoring": self.scoring.model_dump(mode="json", exclude=OF_OTHER_STEPS),
            "base_model": [
                model.model_dump(mode="json")
                for model in self.base_models
                if model.name == claim.base_model
            ],
            "precisions": [named[side].model_dump(mode="json") for side in claim.sides],
        }
        return claim.model_dump(mode="json") | {"settings": settings}

    @model_validator(mode="after")
    def _primary_claim_is_about_what_is_trained(self) -> Grid:
        primary = self.primary
        if primary is None:
            return self
        if primary.sealed and self.scoring.with_linear:
            raise ValueError(
                "scoring.with_linear shows figures of models that primary.sealed hides; leave out one"
            )

        recipes = {recipe.name: recipe for recipe in self.recipes}
        for key, name, known in (
            ("recipe", primary.recipe, recipes),
            ("base_model", primary.base_model, self.models),
        ):
            if name not in known:
                raise ValueError(
                    f"primary.{key}: the grid has no {key.replace('_', ' ')} {name!r}; name one of "
                    f"{', '.join(known)}, {WITHOUT_CLAIM}"
                )

        trained = [precision.name for precision in self.compared]
        moved = [precision.name for precision in self.moved_to or ()]
        trained_seeds = self.seeds_of(recipes[primary.recipe])
        seeds = primary.seeds or trained_seeds
        # An adapter and the same one moved differ by no chance in training.
        least = 2 if primary.sides[0] in trained else 1
        if len(seeds) < least or not {*seeds} <= {*trained_seeds}:
            raise ValueError(
                f"primary.seeds: a primary claim needs two or more seeds that {primary.recipe} is "
                f"trained with ({', '.join(map(str, trained_seeds))}), since one training at each "
                "precision cannot tell a difference from chance in training; train it with more "
                "seeds, claim what a move to a precision of scoring.move_adapters changes, "
                f"{WITHOUT_CLAIM}"
            )

        if primary.sides[0] not in (*trained, *moved) or primary.sides[1] not in trained:
            raise ValueError(
                f"primary.sides: {[*primary.sides]} cannot be compared; name a precision of the "
                f"grid or of scoring.move_adapters, and another that the grid trains at "
                f"({', '.join(trained)}), {WITHOUT_CLAIM}"
            )
        if primary.sealed and primary.sides[0] not in trained:
            raise ValueError(
                f"primary.sealed: adapters are moved to {primary.sides[0]}, and a seal is of trained models; "
                "leave the key out"
            )
        if primary.further_seeds and not primary.sealed:
            raise ValueError(
                "primary.further_seeds: seeds join a claim by what its seal shows alone; add sealed = true, "
                "or leave the key out"
            )
        if primary.threshold != KEPT and primary.sides[0] in trained:
            raise ValueError(
                f"primary.threshold: the grid trains at {primary.sides[0]}, so no adapter that is moved "
                "there is claimed; leave the key out, or name a precision of scoring.move_adapters alone"
            )

        return self

    @model_validator(mode="after")
    def _is_no_more_than_can_be_run(self) -> Grid:
        runs = sum(len(self.seeds_of(recipe)) for recipe in self.recipes)
        count = len(self.models) * len(self.compared) * runs
        if count > MOST_EXPERIMENTS:
            raise ValueError(
                f"models: with all precisions, recipes and seeds the grid makes {count:,} "
                f"experiments, and may have {MOST_EXPERIMENTS:,}; divide it into several grids"
            )
        return self


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
        return precisions.with_precision_for_bits(values)

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


def evaluation_id(scores: str) -> str:
    """Id of an evaluation: the scores with this id, judged as this version judges.

    Both begin with the id of the training.
    """
    return f"{training_of(scores)}-e{short_digest({'scores': scores, 'version': SCORING_VERSION})}"


def training_of(scores: str) -> str:
    """The id of the training to which scores, or an evaluation, with this id belong."""
    return scores.rpartition("-")[0]
