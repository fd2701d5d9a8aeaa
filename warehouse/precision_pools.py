"""Every precision against its reference, pooled over adapters.

Each adapter was trained once, and is judged at both by the same rule with the same threshold, so that
only the weights differ. Bands, verdicts, and which adapters are averaged are those of `pooled.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse.connect import reading
from warehouse.pooled import ALL, Pooled
from warehouse.refresh_pools import pool_rows

_POOLS = """
SELECT
    evaluation_set,
    set_digest,
    precision,
    reference,
    avg(bytes_ratio),
    list([evaluation_id, reference_evaluation] ORDER BY evaluation_id)
FROM precision_comparison_of($ids)
WHERE adapter <> 'own'
GROUP BY base_model, evaluation_set, set_digest, random_weights, precision, reference
ORDER BY base_model, evaluation_set, set_digest, random_weights, avg(stored_bytes) DESC, precision
"""


@dataclass(frozen=True)
class PrecisionFigure:
    """What a precision changes in one metric: the mean over adapters of the precision minus the
    reference, with a 95 % band that holds for all figures of this precision at once.

    `adapters_left_out`: those that beat the best constant answer at neither precision; `seed_sd`:
    between seeds of a recipe; None where it is not available.
    """

    base_model: str
    evaluation_set: str
    set_digest: str
    precision: str
    reference: str
    bytes_ratio: float
    rule: str
    metric: str
    adapters: int
    adapters_left_out: int
    value: float | None
    reference_value: float | None
    difference: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    verdict: str


def precision_figures(
    only: Collection[str] | None = None, database: Path | None = None
) -> list[PrecisionFigure]:
    """The figures of all evaluations, or of those whose ids are in `only`."""
    with reading(database) as con:
        return figures_in(con, only)


def figures_in(
    con: duckdb.DuckDBPyConnection, only: Collection[str] | None = None
) -> list[PrecisionFigure]:
    """The figures by base model, set of cases, and precision, the largest first."""
    ids = None if only is None else sorted(only)
    return [
        _figure(row, names, float(ratio))
        for *names, ratio, pairs in con.execute(_POOLS, {"ids": ids}).fetchall()
        for row in pool_rows(con, [id for pair in pairs for id in pair])
        if row.base_model != ALL
    ]


def _figure(row: Pooled, names: Sequence[str], bytes_ratio: float) -> PrecisionFigure:
    """`names`: set of cases, its digest, precision, and reference."""
    evaluation_set, set_digest, precision, reference = names
    return PrecisionFigure(
        base_model=row.base_model,
        evaluation_set=evaluation_set,
        set_digest=set_digest,
        precision=precision,
        reference=reference,
        bytes_ratio=bytes_ratio,
        rule=row.rule,
        metric=row.metric,
        adapters=row.pairs,
        adapters_left_out=row.pairs_left_out,
        value=row.value_4bit,
        reference_value=row.value_8bit,
        difference=row.difference,
        low=row.low,
        high=row.high,
        seed_sd=row.seed_sd,
        verdict=row.verdict,
    )
