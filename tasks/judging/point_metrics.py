"""Point metrics of triage decisions: the formulas from confusion table to figure.

`tasks/judging/metrics.py` adds the intervals. The warehouse compares models by the same formulas and
may import this one module of the folder, so it needs NumPy alone (no SciPy) and imports nothing of
ours but `tasks.spec`.

A confusion table is 3 x 3: row = truth, column = decision, both in the order LABELS. The functions
take tables of shape (..., 3, 3), all resamples of a bootstrap at once, say, and return shape (...).
Where a metric is not defined (0/0) they return NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.spec import ED_AUROC, LABELS, Label

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Row = dict[str, Any]  # one row of a table of the warehouse, by column
Rows = list[Row]
Costs = Mapping[Any, Mapping[Any, float]] | ArrayLike  # Any: mappings are invariant in their key

MIN_UNITS = 10  # with fewer groups (or cases) a percentile bootstrap is too narrow to be shown

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
PROPORTIONS = (
    "accuracy",
    "over_triage",
    "under_triage",
    "ed_false_negative_rate",
    *(f"{label.lower()}_{metric}" for label in LABELS for metric in ("recall", "precision")),
)


def confusion_cells(truth: Ints, decisions: Ints) -> Floats:
    """One-hot cell of the confusion table of each case, shape (cases, 9).

    Sums over cases, reshaped to (3, 3), are confusion tables. The arguments are positions in
    LABELS, shape (cases,).
    """
    return np.asarray(np.eye(9)[truth * 3 + decisions])


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """numerator / denominator, NaN where the denominator is not positive."""
    quotient = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient


def class_of(metric: str) -> Label | None:
    """The label whose class a metric is of, as ED of `ed_f2`; None for one of all cases."""
    return next((label for label in LABELS if metric.startswith(f"{label.lower()}_")), None)


def ratio_parts(
    metric: str, tables: NDArray[Any], costs: Costs | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numerator and denominator, each of shape (...), of a metric that is one ratio of totals.

    F-beta is (1 + beta^2) hits / (beta^2 actual + decided), from van Rijsbergen's effectiveness
    measure (1979). `costs`: as for `cost_array`. All of METRICS but macro_f1 and cost_skill.
    """
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    actual = tables.sum(-1)
    label = class_of(metric)
    if label is not None:
        place = LABELS.index(label)
        hit, actual, decided = (part[..., place] for part in (hits, actual, tables.sum(-2)))
        match metric.removeprefix(f"{label.lower()}_"):
            case "precision":
                return hit, decided
            case "recall":
                return hit, actual
            case "f1":
                return 2 * hit, actual + decided
            case "f2":
                return 5 * hit, 4 * actual + decided
            case "false_negative_rate":
                return actual - hit, actual

    cases = actual.sum(-1)
    match metric:
        case "accuracy":
            return hits.sum(-1), cases
        case "over_triage":  # decided to be more urgent than they are
            return np.tril(tables, -1).sum((-2, -1)), cases
        case "under_triage":
            return np.triu(tables, 1).sum((-2, -1)), cases
        case "expected_cost":
            return (tables * cost_array(costs)).sum((-2, -1)), cases
    raise KeyError(metric)


def macro_f1(tables: Floats, present: ArrayLike | None = None) -> Floats:
    """Unweighted mean of the classes' F1, shape (...).

    `present` (3,) marks the classes to average; by default those with cases in any of the tables. A
    resample without one of them has none.
    """
    if present is None:
        present = tables.sum(-1).reshape(-1, 3).any(axis=0)
    names = [f"{LABELS[place].lower()}_f1" for place in np.flatnonzero(present)]
    if not names:
        return np.full(tables.shape[:-2], np.nan)
    return np.asarray(np.stack([_class_metric(name, tables) for name in names], axis=-1).mean(-1))


def _class_metric(metric: str, tables: Floats) -> Floats:
    """NaN for a class without cases, of which no decision can be right."""
    has_cases = ratio_parts(f"{metric.partition('_')[0]}_recall", tables)[1] > 0
    return np.where(has_cases, ratio(*ratio_parts(metric, tables)), np.nan)


def cost_skill(tables: Floats, costs: Costs | None) -> Floats:
    """Expected cost on a scale from 0 (always ED) to 1 (perfect decisions), shape (...)."""
    matrix = cost_array(costs)
    actual = tables.sum(-1)
    cases = actual.sum(-1)

    perfect = ratio((actual * np.diagonal(matrix)).sum(-1), cases)
    always_ed = ratio((actual * matrix[:, 0]).sum(-1), cases)
    expected = ratio(*ratio_parts("expected_cost", tables, costs))
    return 1 - ratio(expected - perfect, always_ed - perfect)


def metric_values(
    tables: ArrayLike, costs: Costs | None = None, present: ArrayLike | None = None
) -> dict[str, Floats]:
    """Every metric of METRICS for tables of shape (..., 3, 3), each of shape (...).

    `costs` as for `cost_array`, `present` as for `macro_f1`.
    """
    counts = np.asarray(tables, dtype=np.float64)
    values = {}
    for metric in METRICS:
        if metric == "macro_f1":
            values[metric] = macro_f1(counts, present)
        elif metric == "cost_skill":
            values[metric] = cost_skill(counts, costs)
        elif class_of(metric) is None:
            values[metric] = ratio(*ratio_parts(metric, counts, costs))
        else:
            values[metric] = _class_metric(metric, counts)

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
