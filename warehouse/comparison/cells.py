"""The cases that several evaluations decided, and their metrics as sums of ratios of totals, with what
each unit (a group, or a case without one) adds to them.

The formulas are those of `tasks/judging/point_metrics.py`; the AUROC equals that of
`tasks/judging/score_metrics.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from tasks.judging.point_metrics import (
    Costs,
    Floats,
    Ints,
    UnitCounts,
    placements,
    ratio_parts,
)
from tasks.spec import ED_AUROC, LABELS

OF_EMERGENCIES = ("ed_recall", "ed_f2")  # computed from cases with the label ED
# Columns of _COUNTED, by rule.
RULES = {"primary": "decision", "argmax": "argmax", "target_recall": "target_recall"}
_COUNTED = """
WITH listed AS (
    SELECT unnest($ids) AS evaluation_id, generate_subscripts($ids, 1) - 1 AS model
)
SELECT
    model,
    dense_rank() OVER (ORDER BY case_id) - 1 AS "case",
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
    nll,
    case_group IS NOT NULL AS grouped
FROM prediction JOIN listed USING (evaluation_id) JOIN evaluation USING (evaluation_id)
"""


@dataclass(frozen=True)
class Measured:
    """A metric of several models: values (models,), and influences (models, units), what each unit
    adds to a value; `behind`: as in UnitCounts.
    """

    values: Floats
    influences: Floats
    behind: int


@dataclass(frozen=True)
class Cells:
    """Confusion tables of every unit and model, (units, models, 3, 3): row = truth, column = decision.

    `placed`: sums of placements by the probability of ED, (units, models, 2): over emergencies, and
    over the other cases; `losses`: sums over cases, (units, models).
    """

    counts: Floats
    placed: Floats
    losses: Floats
    costs: Costs | None = None

    @cached_property
    def actual(self) -> Floats:
        """Cases of each class, (units, models, 3)."""
        return np.asarray(self.counts.sum(-1))

    @cached_property
    def by_class(self) -> Floats:
        """Cases of each class, (3,): the most of a model, since one may have no decisions."""
        return np.asarray(self.actual.sum(axis=0).max(axis=0))

    def measured(self, metric: str) -> Measured:
        """The sum over ratios N / D of totals; a unit adds the sum of (n - N / D d) / D. Units that
        no total counts are left out, such as those without an emergency from the ED recall.
        """
        numerators, denominators = self._parts(metric)
        if numerators.ndim == 2:
            numerators, denominators = numerators[..., None], denominators[..., None]

        totals = denominators.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = numerators.sum(axis=0) / totals
            influences = ((numerators - ratios * denominators) / totals).sum(axis=-1)

        counted = denominators.any(axis=(1, 2))
        has_cases = self.actual.max(axis=1) > 0
        without_ed = int(has_cases[:, 1:].any(axis=1).sum())
        units = UnitCounts(has_cases.sum(axis=0), len(self.counts), without_ed)
        return Measured(ratios.sum(axis=-1), influences[counted].T, units.behind(metric))

    def _parts(self, metric: str) -> tuple[Floats, Floats]:
        """Numerators and denominators by unit and model, (units, models) or (units, models, k)."""
        cases = self.actual.sum(-1)
        if metric == "macro_f1":  # over the classes that the set has cases of
            has_cases = self.actual.any(axis=(0, 1))
            parts = [ratio_parts(f"{label.lower()}_f1", self.counts) for label in LABELS]
            numerators, denominators = (
                np.stack(part, axis=-1)[..., has_cases] for part in zip(*parts, strict=True)
            )
            return numerators / max(int(has_cases.sum()), 1), denominators
        if metric == "loss":
            return self.losses, cases
        if metric != ED_AUROC:
            return ratio_parts(metric, self.counts, self.costs)

        # The mean placement of emergencies, plus that of the others, minus the AUROC: either mean
        # alone is the AUROC. Only both together vary between samples as the AUROC does (in first
        # order, as DeLong's variance and, by group, Obuchowski's, Biometrics 53 (1997) 567-578);
        # the third ratio is constant.
        emergencies = self.actual[..., 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = self.placed[..., 0].sum(0) / emergencies.sum(0)
            constant = -(auroc * cases)[..., None]
        return (
            np.concatenate([self.placed, constant], axis=-1),
            np.stack([emergencies, cases - emergencies, cases], axis=-1),
        )


@dataclass(frozen=True)
class JudgedCases:
    """The cases of several evaluations of one set: `unit` and `truth` (cases,); `decided` by rule,
    (models, cases), -1 where it gave none; `p_ed`, the probability of ED, and `losses`, in nats,
    (models, cases).
    """

    unit: Ints
    truth: Ints
    decided: dict[str, Ints]
    p_ed: Floats
    losses: Floats
    grouped: bool

    @property
    def units(self) -> int:
        return int(self.unit.max()) + 1 if len(self.unit) else 0

    def applied(self, rule: str) -> NDArray[np.bool_]:
        """Whether a rule decided every case of a model, (models,)."""
        return np.asarray((self.decided[rule] >= 0).all(axis=1))

    def cells(self, rule: str, costs: Costs | None = None) -> Cells:
        """Sums by unit and model; a model without decisions has empty tables."""
        decided = self.decided[rule]
        models = len(decided)
        model = np.arange(models)[:, None]
        # The place of (unit, model, truth, decision), so that one bincount fills all tables.
        table = (self.unit * models + model) * 9 + self.truth * 3 + decided
        counts = np.bincount(table[decided >= 0], minlength=self.units * models * 9)

        emergency = self.truth == 0
        placed = [placements(scores, emergency) for scores in self.p_ed]
        # Column 0 is that of the emergencies, for which ~emergency is 0.
        kind = (self.unit * models + model) * 2 + ~emergency

        def summed(place: Ints, values: Any, columns: int) -> Floats:
            sums = np.bincount(place.ravel(), np.ravel(values), self.units * models * columns)
            return np.asarray(sums, dtype=np.float64)

        return Cells(
            counts.astype(np.float64).reshape(self.units, models, len(LABELS), len(LABELS)),
            summed(kind, placed, 2).reshape(self.units, models, 2),
            summed(self.unit * models + model, self.losses, 1).reshape(self.units, models),
            costs,
        )


def judged_cases(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> JudgedCases:
    """The predictions of these evaluations, cases and units in the order of their names."""
    params = {"ids": list(ids), "labels": list(LABELS)}
    columns = con.execute(_COUNTED, params).fetchnumpy()

    def codes(name: str) -> Ints:
        return np.ma.filled(columns[name], -1).astype(np.int64)

    place = (codes("model"), codes("case"))
    cases = int(place[1].max()) + 1 if len(place[1]) else 0

    def by_model(values: Any, missing: float) -> Any:
        filled = np.full((len(ids), cases), missing)
        filled[place] = np.ma.filled(values.astype(filled.dtype), missing)
        return filled

    def by_case(name: str) -> Ints:
        values = np.zeros(cases, dtype=np.int64)
        values[place[1]] = codes(name)
        return values

    return JudgedCases(
        by_case("unit"),
        by_case("truth"),
        {rule: by_model(columns[column], -1) for rule, column in RULES.items()},
        by_model(columns["p_ed"], np.nan),
        by_model(columns["nll"], np.nan),
        bool(len(columns["grouped"]) and columns["grouped"].any()),
    )
