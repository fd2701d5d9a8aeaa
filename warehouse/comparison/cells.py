"""Confusion tables and placements of many evaluations on the same cases, summed by the unit that is
resampled, and metrics as sums of ratios of these totals.

The figures equal those of `tasks/judging/point_metrics.py`, and the AUROC that of
`tasks/judging/score_metrics.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from tasks.judging.point_metrics import Floats, Ints, placements
from tasks.spec import LABELS

POOLED = ("accuracy", "ed_recall", "ed_f2", "macro_f1", "over_triage")
OF_EMERGENCIES = ("ed_recall", "ed_f2")  # computed from cases with the label ED
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
class Cells:
    """Confusion tables of every unit and model, (units, models, 3, 3):
    row = truth, column = decision.

    `placed`: sums of placements by the probability of ED, (units, models, 2): over emergencies, and
    over the other cases; None where they are not asked for.
    """

    counts: Floats
    placed: Floats | None = None

    def part(self, models: list[int]) -> Cells:
        return Cells(
            self.counts[:, models], None if self.placed is None else self.placed[:, models]
        )

    def ratios(self, metric: str) -> tuple[Floats, Floats]:
        """Numerators and denominators of one of POOLED, or of ED_AUROC, each (units, models, ratios):
        the metric of a model is the sum of its ratios of totals.
        """
        of_metric = getattr(self, f"_{metric}")  # _accuracy, _ed_recall, ...: a method for each
        numerators, denominators = of_metric()
        if numerators.ndim == 3:
            return numerators, denominators

        return numerators[..., None], denominators[..., None]

    @property
    def _actual(self) -> Floats:
        return np.asarray(self.counts.sum(-1))

    @property
    def _decided(self) -> Floats:
        return np.asarray(self.counts.sum(-2))

    @property
    def _hits(self) -> Floats:
        return np.diagonal(self.counts, axis1=-2, axis2=-1)

    def _accuracy(self) -> tuple[Floats, Floats]:
        return self._hits.sum(-1), self._actual.sum(-1)

    def _ed_recall(self) -> tuple[Floats, Floats]:
        return self._hits[..., 0], self._actual[..., 0]

    def _ed_f2(self) -> tuple[Floats, Floats]:
        # (1 + b^2) hits / (b^2 actual + decided) with b = 2.
        return 5 * self._hits[..., 0], 4 * self._actual[..., 0] + self._decided[..., 0]

    def _over_triage(self) -> tuple[Floats, Floats]:
        return np.asarray(np.tril(self.counts, -1).sum((-2, -1))), self._actual.sum(-1)

    def _macro_f1(self) -> tuple[Floats, Floats]:
        """Over the classes that the set has cases of."""
        has_cases = self._actual.sum(axis=(0, 1)) > 0
        numerators = 2 * self._hits[..., has_cases] / max(int(has_cases.sum()), 1)
        return numerators, (self._actual + self._decided)[..., has_cases]

    def _ed_auroc(self) -> tuple[Floats, Floats]:
        """The mean placement of emergencies, plus that of the others, minus the AUROC.

        Either mean alone is the AUROC. Only both together vary between resamples as the AUROC does
        (in first order, as DeLong's variance and, by group, Obuchowski's, Biometrics 53 (1997)
        567-578); the third ratio is constant.
        """
        assert self.placed is not None
        emergencies = self._actual[..., 0]
        cases = self._actual.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = self.placed[..., 0].sum(0) / emergencies.sum(0)

        return (
            np.concatenate([self.placed, -(auroc * cases)[..., None]], axis=-1),
            np.stack([emergencies, cases - emergencies, cases], axis=-1),
        )


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
