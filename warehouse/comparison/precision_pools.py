"""Every precision against its reference, pooled over the adapters of a recipe, one for each seed.

Each adapter was trained once, and is judged at both by the same rule with the same threshold, so that
only the weights differ. Adapters that were trained at different precisions are pooled apart, since
those of one seed are no two independent trainings; so are those of different recipes, since one
that collapses at a precision would move the mean of all. Bands, verdicts, and which adapters are averaged
are those of `pooled.py`; nothing is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tasks.judging.point_metrics import ED_AUROC
from warehouse.comparison.pooled import Pooled
from warehouse.comparison.pools import pool_rows
from warehouse.connect import reading

# The rule by which a precision is shown in a metric; the AUROC knows none.
RULE_OF = {
    "accuracy": "argmax",
    ED_AUROC: "argmax",
    "ed_recall": "primary",
    "ed_f2": "primary",
    "macro_f1": "primary",
    "over_triage": "primary",
}
# Adapters that beat no constant answer at either precision are not averaged.
WITH_INFORMED = """
SELECT
    pair.*,
    coalesce(its.beats_constant, false) OR coalesce(reference.beats_constant, false) AS is_informed
FROM precision_comparison_of({ids}) AS pair
LEFT JOIN informed AS its ON its.evaluation_id = pair.evaluation_id
LEFT JOIN informed AS reference ON reference.evaluation_id = pair.reference_evaluation
"""
_DIFFERENCES = ", ".join(f"{metric}_diff" for metric in RULE_OF)
_POOLS = f"""
SELECT
    base_model,
    recipe,
    adapter,
    evaluation_set,
    set_digest,
    random_weights,
    precision,
    reference,
    avg(bytes_ratio),
    any_value(note),
    list([{_DIFFERENCES}]) FILTER (WHERE is_informed),
    list([evaluation_id, reference_evaluation] ORDER BY evaluation_id)
FROM ({WITH_INFORMED.format(ids="$ids")})
WHERE adapter <> 'own'
GROUP BY base_model, recipe, adapter, evaluation_set, set_digest, random_weights, precision, reference
ORDER BY
    base_model, recipe, adapter, evaluation_set, set_digest, random_weights,
    avg(stored_bytes) DESC, precision
"""

# The lowest and the highest; None where there is none, or one of them is not known.
Range = tuple[float, float] | None


@dataclass(frozen=True)
class PrecisionPool:
    """What a precision changes in the adapters of a recipe that were trained at one: the precision
    minus the reference, in the means over adapters.

    `adapter`: where they come from, e.g. `from 4bit`; `figures` by metric, under the rule of
    RULE_OF: `value_4bit` is the precision's, `value_8bit` the reference's, and the bands hold for
    all figures of the pool at once. `ranges`: by metric the lowest and the highest difference of
    one adapter, over the same adapters. `note`: what cannot follow from the reference.
    """

    base_model: str
    recipe: str
    adapter: str
    evaluation_set: str
    set_digest: str
    random_weights: bool | None
    precision: str
    reference: str
    bytes_ratio: float | None
    note: str | None
    ranges: dict[str, Range]
    figures: dict[str, Pooled]


def precision_pools(
    only: Collection[str] | None = None, database: Path | None = None
) -> list[PrecisionPool]:
    """The pools of all evaluations, or of those whose ids are in `only`."""
    with reading(database) as con:
        return pools_in(con, only)


def pools_in(
    con: duckdb.DuckDBPyConnection, only: Collection[str] | None = None
) -> list[PrecisionPool]:
    """The pools by base model, recipe, adapters and set of cases, the largest precision first."""
    ids = None if only is None else sorted(only)
    rows = con.execute(_POOLS, {"ids": ids}).fetchall()
    columns = [
        [*values, _ranges(differences), _figures(con, values[0], pairs)]
        for *values, differences, pairs in rows
    ]
    return [PrecisionPool(*values) for values in columns]


def _ranges(differences: Sequence[Sequence[float | None]] | None) -> dict[str, Range]:
    """By metric, over the adapters that are averaged: `differences` has a row of metrics for each,
    and is None where there is no such adapter.
    """
    if differences is None:
        return dict.fromkeys(RULE_OF)

    by_metric = zip(RULE_OF, zip(*differences, strict=True), strict=True)
    return {metric: range_of(values) for metric, values in by_metric}


def range_of(values: Collection[float | None]) -> Range:
    """The lowest and the highest value."""
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known and len(known) == len(values) else None


def _figures(
    con: duckdb.DuckDBPyConnection, base_model: str, pairs: list[list[str]]
) -> dict[str, Pooled]:
    rows = pool_rows(con, [id for pair in pairs for id in pair])
    return {
        row.metric: row
        for row in rows
        if row.base_model == base_model and row.rule == RULE_OF[row.metric]
    }
