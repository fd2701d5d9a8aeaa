"""Triage metrics of one set of decisions, each with its 95 % interval.

Where the interval of ED F2 is computed: `Resampled.interval` takes the percentiles of the bootstrap
values that `resample_metrics` draws; `metric_table` decides for every metric which interval is
shown. The formulas of the metrics are in `tasks/judging/point_metrics.py`.

A metric that the set cannot give (no such class, nobody decided so, 0/0) has value None and a note
that says why: a zero would look like a result. Wherever scikit-learn defines a value, ours is the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.judging.inputs import Costs, cost_array, label_codes
from tasks.judging.intervals import (
    Groups,
    Interval,
    clopper_pearson,
    group_codes,
    interval_columns,
    percentile_interval,
    resample_totals,
    unit_codes,
    wider,
)
from tasks.judging.point_metrics import (
    METRICS,
    Floats,
    Ints,
    UnitCounts,
    confusion_cells,
    metric_values,
    too_few,
)
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

EXACT = "exact (Clopper-Pearson) 95 %"
CLUSTERED = "bootstrap clustered by group 95 %"
STRATIFIED = "bootstrap within classes 95 %"
NO_INTERVAL = "none"
INDEPENDENT = "assumes independent cases"


@dataclass(frozen=True)
class Metric:
    """One metric of one set. `n` is the denominator of a proportion, otherwise the number of cases.

    `low` and `high` are the wider of the two intervals beside them: exact (of a proportion) and
    clustered (where cases have groups).
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

    @classmethod
    def without_value(cls, name: str, n: int, note: str | None) -> Metric:
        """A metric that is not available, for the reason in `note`."""
        return cls(name, None, None, None, NO_INTERVAL, n, note)

    @classmethod
    def without_interval(cls, name: str, value: float, n: int, note: str) -> Metric:
        """A metric whose interval is not available, for the reason in `note`."""
        return cls(name, value, None, None, NO_INTERVAL, n, note)


def joined_notes(*notes: str | None) -> str | None:
    """The notes that there are, separated by semicolons; None without any."""
    return "; ".join(note for note in notes if note) or None


def confusion(labels: Sequence[str], decisions: Sequence[str]) -> Ints:
    """Counts, shape (3, 3): row = truth, column = decision, order LABELS."""
    if len(labels) != len(decisions):
        raise BadInput(
            f"There are {len(labels)} labels but {len(decisions)} decisions; each case needs both."
        )
    cells = label_codes(labels) * 3 + label_codes(decisions)
    return np.bincount(cells, minlength=9).reshape(3, 3).astype(np.int64)


@dataclass(frozen=True)
class Resampled:
    """Every metric over the bootstrap resamples of one set, each of shape (resamples,)."""

    values: dict[str, Floats]
    units: UnitCounts
    clustered: bool  # whether the units are groups

    @property
    def method(self) -> str:
        return CLUSTERED if self.clustered else STRATIFIED

    def interval(self, name: str) -> Interval | None:
        """Bootstrap interval of a metric, ED F2 for one.

        None if it rests on fewer than MIN_UNITS units or is undefined in too many resamples.
        """
        if not self.units.are_enough_for(name):
            return None
        ends = percentile_interval(self.values[name])
        return None if ends is None else Interval(*ends, self.method)

    def why_no_interval(self, name: str) -> str:
        if self.units.are_enough_for(name):
            return "undefined in too many resamples"
        unit = "groups" if self.clustered else "cases"
        return too_few(self.units.behind(name), unit)


def resample_metrics(
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Resampled:
    """Bootstrap every metric at once: whole groups, or cases within each true class."""
    truth = label_codes(labels)
    cells = confusion_cells(truth, label_codes(decisions))
    totals = resample_totals(cells, groups=groups, strata=truth, seed=seed, resamples=resamples)

    units = UnitCounts.of(truth, unit_codes(groups, len(truth)))
    matrix = None if costs is None else cost_array(costs)
    # The classes of the set itself, whichever of them the resamples happen to hold.
    values = metric_values(totals.reshape(-1, 3, 3), matrix, present=units.by_class > 0)
    return Resampled(values, units, clustered=group_codes(groups, len(truth)) is not None)


def metric_table(
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> list[Metric]:
    """Every metric of METRICS with a 95 % interval.

    Proportions have the exact interval and, with groups, the clustered bootstrap beside it; the
    wider of both is shown and named. All other metrics have a bootstrap interval. Without groups a
    note says that independent cases are assumed.
    """
    table = confusion(labels, decisions)
    return metrics_of(
        table, costs, resample_metrics(labels, decisions, groups, costs, seed, resamples)
    )


def metrics_of(table: Ints, costs: Costs | None, resampled: Resampled) -> list[Metric]:
    """As `metric_table`, from a confusion table (3, 3) and the metrics of its resamples."""
    values = metric_values(table, None if costs is None else cost_array(costs))
    proportions = _proportions(table)

    metrics = []
    for name in METRICS:
        value = float(values[name])
        successes, n = proportions.get(name, (None, int(table.sum())))
        if np.isnan(value):
            reason = f"not available: {_why_not_available(name, table, costs)}"
            metrics.append(Metric.without_value(name, n, reason))
        else:
            exact = None if successes is None else Interval(*clopper_pearson(successes, n), EXACT)
            note = _classes_note(table) if name == "macro_f1" else None
            metrics.append(_metric_with_interval(name, value, n, exact, resampled, note))

    return metrics


def _proportions(table: Ints) -> dict[str, tuple[int, int]]:
    """Successes and denominator of each metric that is a plain proportion."""
    cases = int(table.sum())
    hits = np.diagonal(table)

    counts = {
        "accuracy": (int(hits.sum()), cases),
        "over_triage": (int(np.tril(table, -1).sum()), cases),
        "under_triage": (int(np.triu(table, 1).sum()), cases),
        "ed_false_negative_rate": (int(table[0].sum() - hits[0]), int(table[0].sum())),
    }
    for i, label in enumerate(LABELS):
        counts[f"{label.lower()}_recall"] = (int(hits[i]), int(table[i].sum()))
        counts[f"{label.lower()}_precision"] = (int(hits[i]), int(table[:, i].sum()))

    return counts


def _metric_with_interval(
    name: str, value: float, n: int, exact: Interval | None, resampled: Resampled, note: str | None
) -> Metric:
    """A metric with the wider of its intervals. `exact`: that of a proportion."""
    # Without groups a proportion needs no bootstrap: its exact interval makes the same assumption.
    bootstrap = resampled.interval(name) if resampled.clustered or exact is None else None
    interval = wider(exact, bootstrap)
    if interval is None:
        reason = f"no interval: {resampled.why_no_interval(name)}"
        return Metric.without_interval(name, value, n, joined_notes(note, reason) or reason)

    assumption = None
    if not resampled.clustered:
        assumption = INDEPENDENT
    elif bootstrap is None:
        assumption = f"{INDEPENDENT}: {resampled.why_no_interval(name)}"

    columns = interval_columns(exact, bootstrap if resampled.clustered else None)
    note = joined_notes(note, assumption)
    return Metric(name, value, interval.low, interval.high, interval.method, n, note, **columns)


def _classes_note(table: Ints) -> str | None:
    """Which classes macro F1 averages, where these are not all."""
    classes = [label for i, label in enumerate(LABELS) if table[i].sum()]
    if len(classes) == len(LABELS):
        return None
    return f"over the classes present: {', '.join(classes)}"


def _why_not_available(name: str, table: Ints, costs: Costs | None) -> str:
    if not table.sum():
        return "no cases"
    if name in ("expected_cost", "cost_skill"):
        if costs is None:
            return "no cost matrix"
        return "always-ED costs no more than perfect decisions on these cases"

    label = next(label for label in LABELS if name.startswith(f"{label.lower()}_"))
    if not table[LABELS.index(label)].sum():
        return f"no {label} case in this set"

    return f"no case was decided {label}"
