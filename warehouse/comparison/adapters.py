"""Precisions against a reference, the mean over the adapters of a recipe that were judged at both.

Each adapter was trained once, at its source precision, and is judged at both by the same rule with
the same threshold, so that only the weights differ. Adapters of different source precisions are kept
apart, since those of one seed are no two independent trainings. Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import duckdb

from tasks.judging.point_metrics import ED_AUROC
from warehouse.comparison.cells import RULES, judged_cases
from warehouse.comparison.differences import METRICS, differences
from warehouse.connect import reading

_RECIPES = """
WITH latest AS (
    FROM precision_pair_of($ids, $reference)
    WHERE adapter <> 'own'
    QUALIFY row_number() OVER (
        PARTITION BY
            base_model, recipe, seed, adapter, evaluation_set, set_digest, random_weights, precision
        ORDER BY
            scoring_version DESC,
            least(created_at, reference_created_at) DESC,
            greatest(created_at, reference_created_at) DESC,
            evaluation_id DESC,
            reference_evaluation DESC
    ) = 1
)
SELECT
    base_model,
    recipe,
    adapter,
    evaluation_set,
    set_digest,
    random_weights,
    precision,
    reference,
    avg(bytes_ratio) AS bytes_ratio,
    any_value(note) AS reference_note,
    list([evaluation_id, reference_evaluation] ORDER BY seed) AS pairs
FROM latest
GROUP BY base_model, recipe, adapter, evaluation_set, set_digest, random_weights, precision, reference
ORDER BY
    base_model, recipe, adapter, evaluation_set, set_digest, random_weights, avg(stored_bytes) DESC,
    precision
"""


def adapter_rows(
    only: Collection[str] | None = None, reference: str = "bf16", database: Path | None = None
) -> list[dict[str, Any]]:
    """A row per recipe, source precision (`adapter`, e.g. `from 8bit`), set, precision, rule and
    metric, of all evaluations or of those whose ids are in `only`; the largest precision first.

    `value_4bit` is that of the precision, `value_8bit` that of the `reference`, and all else as in
    `pooled_metric`; `reference_note` says what cannot follow from the reference.
    """
    with reading(database) as con:
        return adapter_rows_in(con, only, reference)


def adapter_rows_in(
    con: duckdb.DuckDBPyConnection,
    only: Collection[str] | None = None,
    reference: str = "bf16",
) -> list[dict[str, Any]]:
    ids = None if only is None else sorted(only)
    found = con.execute(_RECIPES, {"ids": ids, "reference": reference})
    names = [name for name, *_ in found.description or []]
    recipes = [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        pairs = recipe.pop("pairs")
        cases = judged_cases(con, [id for pair in pairs for id in pair])
        whole = [(recipe, range(len(pairs)))]
        rows += differences(cases, whole, tuple(RULES), (*METRICS, ED_AUROC))
    return rows
