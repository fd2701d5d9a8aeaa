"""Triage metrics of one set of decisions, each with its 95 % interval.

Where the interval of ED F2 is computed: `Resampled.interval` takes the percentiles of the bootstrap
values that `resample_metrics` draws; `metrics_of` decides for every metric which interval is shown.
The formulas of the metrics are in `tasks/judging/point_metrics.py`.

A metric that the set cannot give (no such class, nobody decided so, 0/0) has value None and a note
that says why: a zero would look like a result. Wherever scikit-learn defines a value, ours is the
same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.intervals import (
    CLUSTERED,
    EXACT,
    INDEPENDENT,
    STRATIFIED,
    UNDEFINED,
    Groups,
    Interval,
    clopper_pearson,
    joined_notes,
    metric_row,
    percentile_interval,
    resample_totals,
    too_few,
    unit_codes,
    wider,
)
from tasks.judging.point_metrics import (
    MIN_UNITS,
    PROPORTIONS,
    Costs,
    Floats,
    Ints,
    Row,
    Rows,
    UnitCounts,
    class_of,
    confusion_cells,
    label_codes,
    metric_values,
    ratio_parts,
)
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS


def label_probabilities(p: ArrayLike) -> Floats:
    """Label probabilities, shape (..., 3) in the order LABELS: finite, and each row sums to 1."""
    values = np.asarray(p, dtype=np.float64)
    rows = values.reshape(-1, len(LABELS))
    # A row with NaN or infinity has no such sum.
    sound = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-3)
    if not sound.all():
        raise BadInput(
            f"Row {np.argmin(sound) + 1} of the label probabilities is negative, not finite, "
            "or does not sum to 1: score again."
        )
    return values


def confusion(labels: Sequence[str], decisions: Sequence[str]) -> Ints:
    """Counts, shape (3, 3): row = truth, column = decision, order LABELS."""
    cells = confusion_cells(label_codes(labels), label_codes(decisions))
    return cells.sum(axis=0).reshape(3, 3).astype(np.int64)


@dataclass(frozen=True)
class Resampled:
    """The confusion table (3, 3) of a set or of a part of it, and every metric over its bootstrap
    resamples, each of shape (resamples,).
    """

    table: Ints
    values: dict[str, Floats]
    units: UnitCounts
    clustered: bool  # whether the units are groups

    def interval(self, name: str) -> Interval | None:
        """Bootstrap interval of a metric, ED F2 for one.

        None if it rests on fewer than MIN_UNITS units or is undefined in too many resamples.
        """
        if self.units.behind(name) < MIN_UNITS:
            return None
        ends = percentile_interval(self.values[name])
        return ends and Interval(*ends, CLUSTERED if self.clustered else STRATIFIED)

    def why_no_interval(self, name: str) -> str:
        behind = self.units.behind(name)
        return UNDEFINED if behind >= MIN_UNITS else too_few(behind, self.clustered)


def resample_metrics(
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
    resamples: int = 2000,
    parts: Sequence[Ints] | None = None,
) -> list[Resampled]:
    """Bootstrap every metric at once: whole groups, or cases within each true class.

    Of the whole set, or of each of `parts`, positions of cases in it; all share the set's resamples.
    """
    truth = label_codes(labels)
    cells = confusion_cells(truth, label_codes(decisions))
    units, clustered = unit_codes(groups, len(truth))
    if parts is None:
        parts = [np.arange(len(truth))]

    # The cells of each part side by side; their totals are its confusion tables.
    columns = np.zeros((len(cells), len(parts), 9))
    for place, rows in enumerate(parts):
        columns[rows, place] = cells[rows]
    stacked = columns.reshape(len(cells), 9 * len(parts))
    totals = resample_totals(stacked, groups=groups, strata=truth, seed=seed, resamples=resamples)
    tables = totals.reshape(-1, len(parts), 3, 3)

    resampled = []
    for place, rows in enumerate(parts):
        behind = UnitCounts.of(truth[rows], units[rows])
        # The classes of the part itself, whichever of them the resamples happen to hold.
        values = metric_values(tables[:, place], costs, present=behind.by_class > 0)
        table = cells[rows].sum(axis=0).reshape(3, 3).astype(np.int64)
        resampled.append(Resampled(table, values, behind, clustered))
    return resampled


def metric_table(
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Rows:
    """A row for every metric of METRICS with a 95 % interval: see `metrics_of`."""
    (whole,) = resample_metrics(labels, decisions, groups, costs, seed, resamples)
    return metrics_of(whole, costs)


def metrics_of(resampled: Resampled, costs: Costs | None) -> Rows:
    """A row for every metric of METRICS.

    Proportions have the exact interval and, with groups, the clustered bootstrap beside it; the
    wider of both is shown and named. All other metrics have a bootstrap interval. Without groups a
    note says that independent cases are assumed.
    """
    table = resampled.table
    classes = [label for i, label in enumerate(LABELS) if table[i].sum()]
    rows = []
    for name, figure in metric_values(table, costs).items():
        value = float(figure)
        exact = None
        n = int(table.sum())
        if name in PROPORTIONS:
            successes, n = map(int, ratio_parts(name, table))
            exact = Interval(*clopper_pearson(successes, n), EXACT) if n else None
        if np.isnan(value):
            reason = f"not available: {_why_not_available(name, table, costs)}"
            rows.append(metric_row(name, None, n, reason))
            continue

        # Without groups a proportion needs no bootstrap: its exact interval assumes as much.
        bootstrap = resampled.interval(name) if resampled.clustered or exact is None else None
        interval = wider(exact, bootstrap)
        note = None
        if interval is None:
            note = f"no interval: {resampled.why_no_interval(name)}"
        elif not resampled.clustered:
            note = INDEPENDENT
        elif bootstrap is None:
            note = f"{INDEPENDENT}: {resampled.why_no_interval(name)}"

        if name == "macro_f1" and len(classes) < len(LABELS):
            note = joined_notes(f"over the classes present: {', '.join(classes)}", note)
        clustered = bootstrap if resampled.clustered else None
        rows.append(metric_row(name, value, n, note, interval, exact, clustered))

    return rows


def _why_not_available(name: str, table: Ints, costs: Costs | None) -> str:
    if not table.sum():
        return "no cases"
    label = class_of(name)
    if label is None:
        if costs is None:
            return "no cost matrix"
        return "always-ED costs no more than perfect decisions on these cases"
    if not table[LABELS.index(label)].sum():
        return f"no {label} case in this set"
    return f"no case was decided {label}"


def share_metric(
    name: str,
    hits: ArrayLike,
    groups: Groups | None,
    seed: int,
    note: str | None = None,
    among: ArrayLike | None = None,
) -> Row:
    """The share of `hits`, shape (cases,), with the wider of its intervals; without a case neither.

    `hits`: booleans, or weights in [0, 1] of cases that count in part; `among`: booleans, the cases
    that count at all. A note says where the interval assumes independent cases.
    """
    weights = np.asarray(hits, dtype=np.float64)
    if among is not None:
        rows = np.flatnonzero(among)
        weights = weights[rows]
        groups = groups and [groups[row] for row in rows.tolist()]
    n = len(weights)
    if not n:
        return metric_row(name, None, 0, note)

    exact = Interval(*clopper_pearson(float(weights.sum()), n), EXACT)
    clustered = None
    units, is_grouped = unit_codes(groups, n)
    if is_grouped and len(np.unique(units)) >= MIN_UNITS:
        totals = resample_totals(np.column_stack([weights, np.ones(n)]), groups=groups, seed=seed)
        ends = percentile_interval(totals[:, 0] / totals[:, 1])
        clustered = ends and Interval(*ends, CLUSTERED)

    note = joined_notes(note, None if clustered else INDEPENDENT)
    interval = wider(exact, clustered)
    return metric_row(name, float(weights.mean()), n, note, interval, exact, clustered)


Subgroup = tuple[str, str]  # field and value, e.g. ("age_band", "child")


def subgroup_rows(subgroups: Sequence[Mapping[str, str]]) -> dict[Subgroup, Ints]:
    """Positions of the cases of each subgroup; `subgroups` maps field to value for each case."""
    rows: dict[Subgroup, list[int]] = {}
    for row, case in enumerate(subgroups):
        for field, value in case.items():
            rows.setdefault((field, str(value)), []).append(row)
    return {key: np.array(rows[key], dtype=np.int64) for key in sorted(rows)}


def few_of_subgroup(cases: int, kind: str) -> str:
    """Why a subgroup has no metric: an interval of so few cases spans most of what is possible."""
    return f"{cases} {kind} of this subgroup are too few (it needs {MIN_UNITS})"


def subgroup_metrics(
    rows: Mapping[Subgroup, Ints],
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
) -> dict[Subgroup, Rows]:
    """Every metric of METRICS in each subgroup, with the same kinds of interval as the whole set's;
    none where too few cases of the subgroup are behind it, which its `n` then counts.
    """
    if not rows:
        return {}

    metrics: dict[Subgroup, Rows] = {}
    parts = resample_metrics(labels, decisions, groups, costs, seed, parts=list(rows.values()))
    for key, part in zip(rows, parts, strict=True):
        metrics[key] = []
        for metric in metrics_of(part, costs):
            name = metric["metric"]
            label = class_of(name)
            counted = part.table if label is None else part.table[LABELS.index(label)]
            if (cases := int(counted.sum())) < MIN_UNITS:
                reason = few_of_subgroup(cases, "cases" if label is None else f"{label} cases")
                metric = metric_row(name, None, cases, f"not available: {reason}")
            metrics[key].append(metric)

    return metrics
