"""Confusion tables and placements of many evaluations on the same cases, summed by the unit that is
resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from tasks.judging.point_metrics import Floats, Ints, placements
from tasks.spec import LABELS
from warehouse.comparison.ratios import Cells

# Columns of _COUNTED, by rule.
RULES = {"primary": "decision", "argmax": "argmax", "target_recall": "target_recall"}
_COUNTED = """
WITH listed AS (
    SELECT unnest($ids) AS evaluation_id, generate_subscripts($ids, 1) - 1 AS model
)
SELECT
    model,
    dense_rank() OVER (ORDER BY coalesce(case_group, 'case ' || case_id)) - 1 AS unit,
    list_position($labels, label) - 1 AS truth,
    list_position($labels, decision) - 1 AS decision,
    list_position($labels, argmax) - 1 AS argmax,
    list_position(
        $labels,
        -- Rows of earlier versions do not say again what the primary rule decides.
        coalesce(target_recall, CASE WHEN primary_rule = 'target_recall' THEN decision END)
    ) - 1 AS target_recall,
    p_ed,
    case_group IS NOT NULL AS grouped
FROM prediction JOIN listed USING (evaluation_id) JOIN evaluation USING (evaluation_id)
"""


@dataclass(frozen=True)
class JudgedCases:
    """The cases of several evaluations, one entry each; `decided` by rule, -1 where it gave none.

    `p_ed`: the probability of ED.
    """

    model: Ints
    unit: Ints
    truth: Ints
    decided: dict[str, Ints]
    p_ed: Floats
    grouped: bool
    models: int

    @property
    def units(self) -> int:
        return int(self.unit.max()) + 1 if len(self.unit) else 0

    def cells(self, rule: str) -> Cells:
        """Confusion tables by unit and model; a model without decisions has empty ones."""
        decided = self.decided[rule]
        counted = decided >= 0
        # The flat index of (unit, model, truth, decision), so that one bincount fills all tables.
        place = (self.unit * self.models + self.model) * 9 + self.truth * 3 + decided
        shape = (self.units, self.models, len(LABELS), len(LABELS))
        counts = np.bincount(place[counted], minlength=int(np.prod(shape)))
        # The AUROC does not depend on the rule, so its sums are made once, with the argmax.
        placed = self._placed(counted) if rule == "argmax" else None
        return Cells(counts.astype(np.float64).reshape(shape), placed)

    def _placed(self, counted: NDArray[np.bool_]) -> Floats:
        """Sums of placements, (units, models, 2)."""
        emergency = self.truth == 0
        shares = np.zeros(len(self.model))
        by_model = np.argsort(self.model, kind="stable")
        ends = np.cumsum(np.bincount(self.model, minlength=self.models))
        for rows in np.split(by_model, ends[:-1]):
            cases = rows[counted[rows]]
            shares[cases] = placements(self.p_ed[cases], emergency[cases])

        # Column 0 is that of the emergencies, for which ~emergency is 0.
        place = (self.unit * self.models + self.model) * 2 + ~emergency
        shape = (self.units, self.models, 2)
        sums = np.bincount(place[counted], shares[counted], minlength=int(np.prod(shape)))
        return np.asarray(sums, dtype=np.float64).reshape(shape)


def judged_cases(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> JudgedCases:
    """The predictions of these evaluations; units in the order of their names, so that seeded
    resampling is repeatable.
    """
    params = {"ids": list(ids), "labels": list(LABELS)}
    columns = con.execute(_COUNTED, params).fetchnumpy()

    def codes(name: str) -> Ints:
        return np.ma.filled(columns[name], -1).astype(np.int64)

    return JudgedCases(
        codes("model"),
        codes("unit"),
        codes("truth"),
        {rule: codes(column) for rule, column in RULES.items()},
        np.ma.filled(columns["p_ed"], np.nan).astype(np.float64),
        bool(len(columns["grouped"]) and columns["grouped"].any()),
        len(ids),
    )
