"""Triage metrics with intervals, all computed from the confusion table (row = truth, column = decision, order LABELS).

A metric that the set cannot give (no such class, nobody decided so, 0/0) has value None and a note that says why: a
zero would look like a result. Wherever scikit-learn defines a value, ours is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.inputs import Costs, cost_array, label_codes
from tasks.judging.intervals import (
    MIN_UNITS,
    Floats,
    Groups,
    Interval,
    Ints,
    bounds,
    clopper_pearson,
    group_codes,
    percentile_interval,
    resample_totals,
    wider,
)
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

EXACT = "exact (Clopper-Pearson) 95 %"
CLUSTERED = "bootstrap clustered by group 95 %"
STRATIFIED = "bootstrap within classes 95 %"
NO_INTERVAL = "none"
INDEPENDENT = "assumes independent cases"
CLASS_METRICS = ("precision", "recall", "f1", "f2")
METRICS = (
    "accuracy", "macro_f1", *(f"{label.lower()}_{metric}" for label in LABELS for metric in CLASS_METRICS),
    "ed_false_negative_rate", "over_triage", "under_triage", "expected_cost", "cost_skill",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One metric of one set. `n` is the denominator of a proportion, otherwise the number of cases.

    `low` and `high` are the wider of both intervals: exact (proportions), clustered by group (where cases have groups).
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    n: int
    note: str | None = None
    exact_low: float | None = None
    exact_high: float | None = None
    clustered_low: float | None = None
    clustered_high: float | None = None


def confusion(labels: Sequence[str], decisions: Sequence[str]) -> Ints:
    """Counts, shape (3, 3): row = truth, column = decision, order LABELS."""
    if len(labels) != len(decisions):
        raise BadInput(
            f"There are {len(labels)} labels but {len(decisions)} decisions; each case needs both."
        )
    flat = label_codes(labels) * 3 + label_codes(decisions)
    return np.bincount(flat, minlength=9).reshape(3, 3).astype(np.int64)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is not positive."""
    out = np.full(np.broadcast(top, bottom).shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out


def metric_values(
    tables: ArrayLike, costs: Costs | None = None, present: ArrayLike | None = None
) -> dict[str, Floats]:
    """Every metric of METRICS for confusion tables of shape (..., 3, 3), each of shape (...), NaN where not available.

    A class without cases has no precision, recall, F1 or F2. `present` marks the classes that macro-F1 averages over
    (default: those with cases in any table); cost_skill is 1 at perfect decisions and 0 at always-ED.
    """
    t = np.asarray(tables, dtype=np.float64)
    hits, actual, chosen = np.diagonal(t, axis1=-2, axis2=-1), t.sum(-1), t.sum(-2)
    total = actual.sum(-1)
    scores = {
        "precision": np.where(actual > 0, _ratio(hits, chosen), np.nan),
        "recall": _ratio(hits, actual),
        "f1": np.where(actual > 0, _ratio(2 * hits, actual + chosen), np.nan),
        "f2": np.where(actual > 0, _ratio(5 * hits, 4 * actual + chosen), np.nan),
    }
    held = actual.reshape(-1, 3).any(axis=0) if present is None else np.asarray(present, dtype=bool)
    values = {
        "accuracy": _ratio(hits.sum(-1), total),
        "macro_f1": scores["f1"][..., held].mean(-1)
        if held.any()
        else np.full(total.shape, np.nan),
    }
    for i, label in enumerate(LABELS):
        values |= {f"{label.lower()}_{metric}": scores[metric][..., i] for metric in CLASS_METRICS}
    values["ed_false_negative_rate"] = _ratio(actual[..., 0] - hits[..., 0], actual[..., 0])
    values["over_triage"] = _ratio(np.tril(t, -1).sum((-2, -1)), total)
    values["under_triage"] = _ratio(np.triu(t, 1).sum((-2, -1)), total)
    matrix = np.full((3, 3), np.nan) if costs is None else cost_array(costs)
    values["expected_cost"] = _ratio((t * matrix).sum((-2, -1)), total)
    perfect, always_ed = (
        _ratio((actual * c).sum(-1), total) for c in (np.diagonal(matrix), matrix[:, 0])
    )
    values["cost_skill"] = 1 - _ratio(values["expected_cost"] - perfect, always_ed - perfect)
    return values


@dataclass(frozen=True)
class Resampled:
    """Every metric over bootstrap resamples of one set, and how many units the bootstrap could draw from."""

    values: dict[str, Floats]
    class_units: Ints  # groups (without groups: cases) that hold cases of each class, order LABELS
    all_units: int
    clustered: bool

    @property
    def method(self) -> str:
        return CLUSTERED if self.clustered else STRATIFIED

    def units(self, name: str) -> int:
        """Units behind a metric: those of its class, of the rarest class for macro-F1, else all."""
        for i, label in enumerate(LABELS):
            if name.startswith(f"{label.lower()}_"):
                return int(self.class_units[i])
        if name == "macro_f1":
            return int(min((u for u in self.class_units if u > 0), default=0))
        return self.all_units

    def interval(self, name: str) -> Interval | None:
        """Bootstrap interval, None when it rests on fewer than MIN_UNITS units or is undefined too often."""
        bounds = percentile_interval(self.values[name]) if self.units(name) >= MIN_UNITS else None
        return None if bounds is None else Interval(*bounds, self.method)

    def why_no_interval(self, name: str) -> str:
        unit = "groups" if self.clustered else "cases"
        if self.units(name) < MIN_UNITS:
            return f"{self.units(name)} {unit} are too few for a bootstrap (it needs {MIN_UNITS})"
        return "undefined in too many resamples"


def resample_metrics(
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Resampled:
    """Bootstrap every metric at once: whole groups, or without groups cases within each true class."""
    truth, decided = label_codes(labels), label_codes(decisions)
    codes = group_codes(groups, len(truth))
    cells = np.eye(9)[truth * 3 + decided]
    totals = resample_totals(cells, groups=groups, strata=truth, seed=seed, resamples=resamples)
    units = np.arange(len(truth)) if codes is None else codes
    per_class = np.array([len(np.unique(units[truth == i])) for i in range(3)], dtype=np.int64)
    values = metric_values(totals.reshape(-1, 3, 3), costs, present=per_class > 0)
    return Resampled(values, per_class, len(np.unique(units)), codes is not None)


def metric_table(
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> list[Metric]:
    """Every metric of METRICS with a 95 % interval.

    Proportions have the exact interval and, with groups, the clustered bootstrap: the wider one is named and used, both
    stand beside it.
    Everything else has a bootstrap interval. Without groups a note says that independent cases are assumed.
    """
    table = confusion(labels, decisions)
    values = metric_values(table, costs)
    resampled = resample_metrics(labels, decisions, groups, costs, seed, resamples)
    counts = _proportions(table)
    return [
        _metric(name, float(values[name]), counts.get(name), table, costs, resampled)
        for name in METRICS
    ]


def _proportions(table: Ints) -> dict[str, tuple[int, int]]:
    """Successes and denominator of each metric that is a plain proportion."""
    n, hits = int(table.sum()), np.diagonal(table)
    counts = {
        "accuracy": (int(hits.sum()), n),
        "over_triage": (int(np.tril(table, -1).sum()), n),
        "under_triage": (int(np.triu(table, 1).sum()), n),
        "ed_false_negative_rate": (int(table[0].sum() - hits[0]), int(table[0].sum())),
    }
    for i, label in enumerate(LABELS):
        counts[f"{label.lower()}_recall"] = (int(hits[i]), int(table[i].sum()))
        counts[f"{label.lower()}_precision"] = (int(hits[i]), int(table[:, i].sum()))
    return counts


def _metric(
    name: str,
    value: float,
    counts: tuple[int, int] | None,
    table: Ints,
    costs: Costs | None,
    resampled: Resampled,
) -> Metric:
    n = counts[1] if counts else int(table.sum())
    if np.isnan(value):
        return Metric(
            name,
            None,
            None,
            None,
            NO_INTERVAL,
            n,
            f"not available: {_why_missing(name, table, costs)}",
        )
    notes = []
    held = [label for i, label in enumerate(LABELS) if table[i].sum()]
    if name == "macro_f1" and len(held) < len(LABELS):
        notes.append(f"over the classes present: {', '.join(held)}")
    exact = Interval(*clopper_pearson(*counts), EXACT) if counts else None
    bootstrap = resampled.interval(name) if resampled.clustered or not counts else None
    chosen, both = (
        wider(exact, bootstrap),
        bounds(exact, bootstrap if resampled.clustered else None),
    )
    if chosen is None:
        notes.append(f"no interval: {resampled.why_no_interval(name)}")
        return Metric(name, value, None, None, NO_INTERVAL, n, "; ".join(notes))
    if not resampled.clustered:
        notes.append(INDEPENDENT)
    elif bootstrap is None:
        notes.append(f"{INDEPENDENT}: {resampled.why_no_interval(name)}")
    return Metric(
        name, value, chosen.low, chosen.high, chosen.method, n, "; ".join(notes) or None, **both
    )


def _why_missing(name: str, table: Ints, costs: Costs | None) -> str:
    if not table.sum():
        return "no cases"
    if name in ("expected_cost", "cost_skill"):
        return (
            "no cost matrix"
            if costs is None
            else "always-ED costs no more than perfect decisions on these cases"
        )
    label = next(label for label in LABELS if name.startswith(f"{label.lower()}_"))
    return (
        f"no {label} case in this set"
        if not table[LABELS.index(label)].sum()
        else f"no case was decided {label}"
    )
