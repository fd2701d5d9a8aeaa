"""What chance does to the trainings of a study: how 4 minus 8 bits varies between seeds of a recipe
in the warehouse, and what the seeds of a grid can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.runtime.errors import Locked
from tasks.spec import ExperimentSpec
from warehouse.connect import warehouse_path
from warehouse.query import query_rows
from warehouse.seed_spread import SeedSpread

METRICS = ("accuracy", "ed_recall", "ed_auroc")
# Two models that know nothing are alike whatever chance does.
PAIRS = """
SELECT
    pair.base_model,
    pair.recipe,
    pair.seed,
    pair.random_weights,
    concat_ws(' ', settings_digest, primary_rule, target_ed_recall, cost_matrix, set_digest),
    pair.accuracy_diff,
    pair.ed_recall_diff,
    four.value - eight.value
FROM quantization_comparison AS pair
LEFT JOIN metric AS four
    ON four.evaluation_id = pair.evaluation_4bit AND four.rule = 'argmax' AND four.metric = 'ed_auroc'
LEFT JOIN metric AS eight
    ON eight.evaluation_id = pair.evaluation_8bit AND eight.rule = 'argmax' AND eight.metric = 'ed_auroc'
WHERE EXISTS (
    FROM informed
    WHERE beats_constant AND evaluation_id IN (pair.evaluation_4bit, pair.evaluation_8bit)
)
ORDER BY pair.base_model, pair.recipe, pair.seed
"""


@dataclass(frozen=True)
class _Pair:
    """A trained pair of the warehouse; `differences`: 4 minus 8 bits, in the order of METRICS."""

    base_model: str
    recipe: str
    seed: int
    random_weights: bool
    judged: str  # settings, rule and cases: equal where pairs differ by their seeds alone
    differences: tuple[float | None, ...]


@dataclass(frozen=True)
class StoredSpread:
    """How the differences of `recipes` vary between their seeds, by metric of METRICS; a metric that
    a pair lacks is left out.
    """

    recipes: tuple[str, ...]
    pairs: int
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
        pairs = [_read(row) for row in query_rows(PAIRS).rows]
    except Locked:
        return None

    names = {(cell.model.name, cell.recipe.name) for cell in cells}
    of_study = [pair for pair in pairs if (pair.base_model, pair.recipe) in names]
    real_pairs = [pair for pair in pairs if not pair.random_weights]
    return _spread(of_study) or _spread(real_pairs)


def _read(row: Sequence[Any]) -> _Pair:
    """A row of PAIRS."""
    base_model, recipe, seed, random_weights, judged, *differences = row
    return _Pair(base_model, recipe, seed, random_weights, judged, tuple(differences))


def _spread(pairs: Sequence[_Pair]) -> StoredSpread | None:
    by_recipe = _most_seeds(pairs)
    if not by_recipe:
        return None

    by_metric = {}
    for place, metric in enumerate(METRICS):
        values = [[pair.differences[place] for pair in alike] for alike in by_recipe]
        spread = SeedSpread.of([_numbers(of_recipe) for of_recipe in values])
        if spread is not None:
            by_metric[metric] = spread

    names = sorted({f"{alike[0].base_model} {alike[0].recipe}" for alike in by_recipe})
    return StoredSpread(tuple(names), sum(map(len, by_recipe)), by_metric)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _most_seeds(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
    """Of each model and recipe the pairs that differ by their seeds alone, on the set of cases and
    under the settings that have most of them; a single seed is left out.
    """
    alike: dict[tuple[str, str, str], list[_Pair]] = {}
    for pair in pairs:
        alike.setdefault((pair.base_model, pair.recipe, pair.judged), []).append(pair)

    most: dict[tuple[str, str], list[_Pair]] = {}
    for (model, recipe, _), group in alike.items():
        if len(group) > max(1, len(most.get((model, recipe), ()))):
            most[model, recipe] = group

    return list(most.values())
