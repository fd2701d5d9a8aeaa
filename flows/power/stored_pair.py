"""The pair in the warehouse whose behaviour a plan expects of the pairs to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from flows.report.typed_rows import TRAINED
from tasks.judging.point_metrics import label_codes
from tasks.judging.study_draws import PairedCounts, units_of
from tasks.runtime.errors import Locked
from tasks.spec import ExperimentSpec
from warehouse.connect import warehouse_path
from warehouse.query import query_rows

PAIRS = """
SELECT
    pair.base_model, pair.recipe, four.recipe_kind, pair.seed, four.random_weights,
    pair.evaluation_4bit, pair.evaluation_8bit
FROM matched_pair AS pair JOIN experiment AS four ON four.training_id = pair.training_4bit
WHERE pair.evaluation_set = 'test'
ORDER BY pair.base_model, pair.recipe, pair.seed
"""
CASES = """
SELECT
    four.label, four.decision, eight.decision, four.argmax, eight.argmax,
    four.case_group, four.case_id
FROM prediction AS four JOIN prediction AS eight USING (case_id)
WHERE four.evaluation_id = '{}' AND eight.evaluation_id = '{}' ORDER BY four.case_id
"""


@dataclass(frozen=True)
class StoredPair:
    """A pair of the warehouse: its decisions by the recipe's own rule, and its most probable labels,
    by which accuracy is judged. `others`: how many more fit the study as well.
    """

    base_model: str
    recipe: str
    recipe_kind: str
    seed: int
    random_weights: bool
    counts: PairedCounts
    by_argmax: PairedCounts
    others: int = 0

    @property
    def has_one_rule(self) -> bool:
        """Whether each decision is the most probable label."""
        return np.array_equal(self.counts.counts, self.by_argmax.counts)


def stored_pair(cells: Sequence[ExperimentSpec]) -> StoredPair | None:
    """Of the pairs of these experiments' models and recipes the one of median discordance; else of
    all trained models, else of the untuned ones. Random weights stand for themselves alone.

    None where there is none, or the warehouse cannot be read now.
    """
    if not warehouse_path().is_file():
        return None

    try:
        pairs = [_read(row) for row in query_rows(PAIRS).rows]
    except Locked:
        return None

    names = {(spec.model.name, spec.recipe.name) for spec in cells}
    usable = [pair for pair in pairs if pair is not None]
    of_study = [pair for pair in usable if (pair.base_model, pair.recipe) in names]
    real_pairs = [pair for pair in usable if not pair.random_weights]
    trained_pairs = [pair for pair in real_pairs if pair.recipe_kind in TRAINED]
    ranked_pairs = sorted(
        of_study or trained_pairs or real_pairs, key=lambda pair: pair.counts.discordance
    )
    if not ranked_pairs:
        return None

    return replace(ranked_pairs[len(ranked_pairs) // 2], others=len(ranked_pairs) - 1)


def _read(row: Sequence[object]) -> StoredPair | None:
    """A row of PAIRS with its cases, None where a decision is missing."""
    base_model, recipe, recipe_kind, seed, random_weights, at_4bit, at_8bit = row
    cases = query_rows(CASES.format(at_4bit, at_8bit)).rows
    if not cases or any(None in case[:5] for case in cases):
        return None

    labels, four, eight, argmax_four, argmax_eight, groups, ids = zip(*cases, strict=True)
    counted = partial(
        PairedCounts.of,
        label_codes(labels),
        units=units_of(groups, ids),
        grouped=any(group is not None for group in groups),
    )
    return StoredPair(
        str(base_model),
        str(recipe),
        str(recipe_kind),
        int(str(seed)),
        bool(random_weights),
        counted(at_4bit=label_codes(four), at_8bit=label_codes(eight)),
        counted(at_4bit=label_codes(argmax_four), at_8bit=label_codes(argmax_eight)),
    )
