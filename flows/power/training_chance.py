"""What chance does to the trainings of a study: how 4 minus 8 bits varies between seeds of a recipe
in the warehouse, and what the seeds of a grid can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.figures import is_number
from tasks.judging.point_metrics import ED_AUROC
from tasks.runtime.errors import Locked
from tasks.spec import ExperimentSpec
from warehouse.comparison.resampling import SeedSpread
from warehouse.connect import warehouse_path
from warehouse.query import query_rows

METRICS = ("accuracy", "ed_recall", ED_AUROC)
# Trained pairs; two models that know nothing are alike whatever chance does.
PAIRS = """
SELECT
    base_model, recipe, random_weights, cases, set_digest, seed_group,
    accuracy_diff, ed_recall_diff, ed_auroc_diff
FROM quantization_comparison AS pair
JOIN seed_group ON seed_group.evaluation_id = pair.evaluation_4bit
SEMI JOIN pooled_pair USING (evaluation_4bit, evaluation_8bit)
WHERE EXISTS (
    FROM informed
    WHERE beats_constant AND evaluation_id IN (pair.evaluation_4bit, pair.evaluation_8bit)
)
ORDER BY base_model, recipe, seed
"""


@dataclass(frozen=True)
class _Pair:
    """A trained pair of the warehouse; `differences`: 4 minus 8 bits, in the order of METRICS.

    `alike`: what pairs have in common that differ by their seeds alone.
    """

    base_model: str
    recipe: str
    random_weights: bool
    cases: int
    alike: tuple[object, ...]
    differences: tuple[float | None, ...]

    @classmethod
    def read(cls, row: Sequence[Any]) -> _Pair:
        """A row of PAIRS."""
        model, recipe, is_random, cases = row[:4]
        return cls(model, recipe, bool(is_random), cases, tuple(row[:-3]), tuple(row[-3:]))


@dataclass(frozen=True)
class StoredSpread:
    """How the differences of `recipes` vary between their seeds, by metric of METRICS.

    `cases`: the fewest that a pair was judged on. A metric that no two seeds have is left out.
    """

    recipes: tuple[str, ...]
    pairs: int
    cases: int
    by_metric: dict[str, SeedSpread]


@dataclass(frozen=True)
class PlannedPairs:
    """How many 4-bit/8-bit pairs a grid trains, of how many models and recipes."""

    total: int
    recipes: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom of what varies between seeds."""
        return self.total - self.recipes


def planned_pairs(cells: Sequence[ExperimentSpec]) -> PlannedPairs:
    """Pairs of these experiments that differ in 4 and 8 bits alone."""
    at_4bit, at_8bit = (
        {
            (cell.model.name, cell.recipe.name, cell.seed)
            for cell in cells
            if cell.precision.name == name
        }
        for name in ("4bit", "8bit")
    )
    paired = at_4bit & at_8bit
    recipes = {(model, recipe) for model, recipe, _ in paired}
    return PlannedPairs(len(paired), len(recipes))


def stored_spread(cells: Sequence[ExperimentSpec]) -> StoredSpread | None:
    """From the pairs of these experiments' models and recipes; else from those of other models with
    real weights.

    None where no recipe has two seeds, or the warehouse cannot be read now.
    """
    if not warehouse_path().is_file():
        return None

    try:
        pairs = [_Pair.read(row) for row in query_rows(PAIRS).rows]
    except Locked:
        return None

    names = {(cell.model.name, cell.recipe.name) for cell in cells}
    of_study = [pair for pair in pairs if (pair.base_model, pair.recipe) in names]
    real_pairs = [pair for pair in pairs if not pair.random_weights]
    return _spread(of_study) or _spread(real_pairs)


def _spread(pairs: Sequence[_Pair]) -> StoredSpread | None:
    by_recipe = _most_seeds(pairs)
    if not by_recipe:
        return None

    by_metric = {}
    for place, metric in enumerate(METRICS):
        values = [[pair.differences[place] for pair in seeds] for seeds in by_recipe]
        spread = SeedSpread.of([[v for v in of if is_number(v)] for of in values])
        if spread is not None:
            by_metric[metric] = spread

    return StoredSpread(
        tuple(sorted({f"{seeds[0].base_model} {seeds[0].recipe}" for seeds in by_recipe})),
        sum(map(len, by_recipe)),
        min(pair.cases for seeds in by_recipe for pair in seeds),
        by_metric,
    )


def _most_seeds(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
    """Of each model and recipe the pairs that differ by their seeds alone: on the cases and under the
    settings that most of them have. A single seed is left out.
    """
    alike: dict[tuple[object, ...], list[_Pair]] = {}
    for pair in pairs:
        alike.setdefault(pair.alike, []).append(pair)

    most: dict[tuple[str, str], list[_Pair]] = {}
    for seeds in alike.values():
        name = seeds[0].base_model, seeds[0].recipe
        if len(seeds) > max(1, len(most.get(name, ()))):
            most[name] = seeds

    return list(most.values())
