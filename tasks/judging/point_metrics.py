"""Point metrics of triage decisions: the formulas from confusion table to figure.

`tasks/judging/metrics.py` adds the intervals. The warehouse compares models by the same formulas and
may import this one module of the folder, so it needs NumPy alone (no SciPy) and imports nothing of
ours but `tasks.spec`.

A confusion table is 3 x 3: row = truth, column = decision, both in the order LABELS. The functions
take tables of shape (..., 3, 3), all resamples of a bootstrap at once, say, and return shape (...)
or, for a metric of each class, (..., 3). Where a metric is not defined (0/0) they return NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.spec import LABELS, Label

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Row = dict[str, Any]  # one row of a table of the warehouse, by column
Rows = list[Row]
Costs = Mapping[Any, Mapping[Any, float]] | ArrayLike  # Any: mappings are invariant in their key

MIN_UNITS = 10  # with fewer groups (or cases) a percentile bootstrap is too narrow to be shown
ED_AUROC = "ed_auroc"

CLASS_METRICS = ("precision", "recall", "f1", "f2")
METRICS = (
    "accuracy",
    "macro_f1",
    *(f"{label.lower()}_{metric}" for label in LABELS for metric in CLASS_METRICS),
    "ed_false_negative_rate",
    "over_triage",
    "under_triage",
    "expected_cost",
    "cost_skill",
)


def confusion_cells(truth: Ints, decisions: Ints) -> Floats:
    """One-hot cell of the confusion table of each case, shape (cases, 9).

    Sums over cases, reshaped to (3, 3), are confusion tables. The arguments are positions in
    LABELS, shape (cases,).
    """
    return np.asarray(np.eye(9)[truth * 3 + decisions])


def hits(tables: Floats) -> Floats:
    """Cases of each class that were decided rightly, shape (..., 3)."""
    return np.diagonal(tables, axis1=-2, axis2=-1)


def actual_cases(tables: Floats) -> Floats:
    """Cases that belong to each class, shape (..., 3)."""
    return np.asarray(tables.sum(-1))


def decided_cases(tables: Floats) -> Floats:
    """Cases that were decided to be of each class, shape (..., 3)."""
    return np.asarray(tables.sum(-2))


def all_cases(tables: Floats) -> Floats:
    """Cases in each table, shape (...)."""
    return np.asarray(actual_cases(tables).sum(-1))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is not positive."""
    quotient = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def accuracy(tables: Floats) -> Floats:
    """Share of all cases that were decided rightly, shape (...)."""
    return ratio(hits(tables).sum(-1), all_cases(tables))


def recall(tables: Floats) -> Floats:
    """Share of each class's cases that were decided rightly (sensitivity), shape (..., 3)."""
    return ratio(hits(tables), actual_cases(tables))


def precision(tables: Floats) -> Floats:
    """Share of the decisions for each class that were right, shape (..., 3).

    NaN also for a class without cases, of which no decision can be right.
    """
    return _where_class_has_cases(tables, ratio(hits(tables), decided_cases(tables)))


def f_parts(tables: Floats, beta: int) -> tuple[Floats, Floats]:
    """Numerator and denominator of F-beta of each class, shape (..., 3) each.

    (1 + beta^2) hits / (beta^2 actual + decided), from van Rijsbergen's effectiveness measure
    (1979): F1 at beta 1; F2, which counts recall more, at beta 2.
    """
    weight = beta**2
    denominator = weight * actual_cases(tables) + decided_cases(tables)
    return (1 + weight) * hits(tables), denominator


def f_score(tables: Floats, beta: int) -> Floats:
    """F-beta of each class, shape (..., 3); NaN for a class without cases."""
    return _where_class_has_cases(tables, ratio(*f_parts(tables, beta)))


def _where_class_has_cases(tables: Floats, values: Floats) -> Floats:
    return np.where(actual_cases(tables) > 0, values, np.nan)


def macro_f1(tables: Floats, present: ArrayLike | None = None) -> Floats:
    """Unweighted mean of the classes' F1, shape (...).

    `present` (3,) marks the classes to average; by default those with cases in any of the tables. A
    resample without one of them has none.
    """
    if present is None:
        present = actual_cases(tables).reshape(-1, 3).any(axis=0)
    averaged = np.asarray(present, dtype=bool)

    if not averaged.any():
        return np.full(tables.shape[:-2], np.nan)
    return np.asarray(f_score(tables, 1)[..., averaged].mean(-1))


def total_cost(tables: Floats, costs: Floats) -> Floats:
    """Summed cost of all cases, shape (...). `costs` (3, 3): row = truth, column = decision."""
    return np.asarray((tables * costs).sum((-2, -1)))


def cost_skill(tables: Floats, costs: Floats) -> Floats:
    """Expected cost on a scale from 0 (always ED) to 1 (perfect decisions), shape (...)."""
    actual = actual_cases(tables)
    total = all_cases(tables)

    expected = ratio(total_cost(tables, costs), total)
    perfect = ratio((actual * np.diagonal(costs)).sum(-1), total)
    always_ed = ratio((actual * costs[:, 0]).sum(-1), total)
    return 1 - ratio(expected - perfect, always_ed - perfect)


def over_triaged(tables: Floats | Ints) -> Floats:
    """Cases that were decided to be more urgent than they are, shape (...)."""
    return np.asarray(np.tril(tables, -1).sum((-2, -1)))


def under_triaged(tables: Floats | Ints) -> Floats:
    """Cases that were decided to be less urgent than they are, shape (...)."""
    return np.asarray(np.triu(tables, 1).sum((-2, -1)))


def metric_values(
    tables: ArrayLike, costs: Costs | None = None, present: ArrayLike | None = None
) -> dict[str, Floats]:
    """Every metric of METRICS for tables of shape (..., 3, 3), each of shape (...).

    `costs` as for `cost_array`, `present` as for `macro_f1`.
    """
    counts = np.asarray(tables, dtype=np.float64)
    matrix = cost_array(costs)
    total = all_cases(counts)
    by_class = {
        "precision": precision(counts),
        "recall": recall(counts),
        "f1": f_score(counts, 1),
        "f2": f_score(counts, 2),
    }

    values = {"accuracy": accuracy(counts), "macro_f1": macro_f1(counts, present)}
    for i, label in enumerate(LABELS):
        values |= {f"{label.lower()}_{name}": by_class[name][..., i] for name in CLASS_METRICS}

    actual = actual_cases(counts)
    values["ed_false_negative_rate"] = ratio(actual - hits(counts), actual)[..., 0]
    values["over_triage"] = ratio(over_triaged(counts), total)
    values["under_triage"] = ratio(under_triaged(counts), total)
    values["expected_cost"] = ratio(total_cost(counts, matrix), total)
    values["cost_skill"] = cost_skill(counts, matrix)

    return values


def placements(scores: Floats, is_positive: NDArray[np.bool_]) -> Floats:
    """The share of cases of the other kind that each case is ranked correctly against; a tie counts
    one half.

    All of shape (cases,). The mean over the positives is the AUROC, and so is the mean over the
    negatives: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845. NaN without cases of
    the other kind.
    """
    shares = np.full(len(scores), np.nan)
    for of_kind, sign in ((is_positive, 1), (~is_positive, -1)):
        others = np.sort(sign * scores[~of_kind])
        if len(others):
            own_scores = sign * scores[of_kind]
            below = np.searchsorted(others, own_scores, side="left")
            not_above = np.searchsorted(others, own_scores, side="right")
            shares[of_kind] = (below + not_above) / (2 * len(others))

    return shares


def class_of(metric: str) -> Label | None:
    """The label whose class a metric is of, as ED of `ed_f2`; None for one of all cases."""
    return next((label for label in LABELS if metric.startswith(f"{label.lower()}_")), None)


@dataclass(frozen=True)
class UnitCounts:
    """How many units (groups, or without groups cases) a bootstrap has to draw from."""

    by_class: Ints  # units that hold cases of each class, order LABELS
    total: int
    without_ed: int  # units that hold a case with another label than ED

    @classmethod
    def of(cls, truth: Ints, units: Ints) -> UnitCounts:
        """Count the distinct `units`, overall and by class; both arguments of shape (cases,)."""
        by_class = [len(np.unique(units[truth == i])) for i in range(len(LABELS))]
        return cls(
            np.array(by_class, dtype=np.int64),
            len(np.unique(units)),
            len(np.unique(units[truth != 0])),
        )

    def behind(self, metric: str) -> int:
        """Units behind a metric: of its class, of the rarest class for macro F1, of the rarer kind
        for the AUROC of ED, else all.
        """
        if metric == ED_AUROC:
            return min(int(self.by_class[0]), self.without_ed)
        if metric == "macro_f1":
            return int(min((units for units in self.by_class if units > 0), default=0))
        label = class_of(metric)
        return self.total if label is None else int(self.by_class[LABELS.index(label)])

    def are_enough_for(self, metric: str) -> bool:
        """Whether a bootstrap interval of the metric may be shown."""
        return self.behind(metric) >= MIN_UNITS


def label_codes(labels: Sequence[str]) -> Ints:
    """Position of each label in LABELS, shape (cases,)."""
    position = {str(label): i for i, label in enumerate(LABELS)}
    return np.array([position[label] for label in labels], dtype=np.int64)


def cost_array(costs: Costs | None) -> Floats:
    """Costs as an array, shape (3, 3), from an array or a nested mapping; NaN without costs.

    Row = truth, column = decision, both in the order LABELS.
    """
    if costs is None:
        return np.full((3, 3), np.nan)
    if isinstance(costs, Mapping):
        costs = [[costs[truth][decision] for decision in LABELS] for truth in LABELS]
    return np.asarray(costs, dtype=np.float64)
