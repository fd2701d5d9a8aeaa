"""Every metric within subgroups (age band, voice, ...): a good average can hide a failing group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.judging.inputs import Costs, cost_array, label_codes
from tasks.judging.intervals import Groups, group_codes, resample_totals, unit_codes
from tasks.judging.metrics import Metric, Resampled, metrics_of
from tasks.judging.point_metrics import (
    MIN_UNITS,
    Floats,
    Ints,
    UnitCounts,
    confusion_cells,
    metric_values,
)
from tasks.spec import LABELS

MIN_CASES = MIN_UNITS  # below this an interval spans most of what is possible

Subgroup = tuple[str, str]  # field and value, e.g. ("age_band", "child")


def subgroup_rows(subgroups: Sequence[Mapping[str, str]]) -> dict[Subgroup, Ints]:
    """Positions of the cases of each subgroup; `subgroups` maps field to value for each case."""
    rows: dict[Subgroup, list[int]] = {}
    for row, case in enumerate(subgroups):
        for field, value in case.items():
            rows.setdefault((field, str(value)), []).append(row)
    return {key: np.array(rows[key], dtype=np.int64) for key in sorted(rows)}


def subgroup_metrics(
    rows: Mapping[Subgroup, Ints],
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    costs: Costs | None = None,
    seed: int = 0,
) -> dict[Subgroup, list[Metric]]:
    """Every metric of METRICS in each subgroup, with the same kinds of interval as the whole set's.

    All subgroups share one set of resamples of the whole set. The `n` of a metric of a class that
    is not available counts the subgroup's cases of that class.
    """
    if not rows:
        return {}

    truth = label_codes(labels)
    decision_codes = label_codes(decisions)
    cells = confusion_cells(truth, decision_codes)
    resampled = _resampled_tables(cells, rows, truth, groups, seed)
    units = unit_codes(groups, len(truth))
    clustered = group_codes(groups, len(truth)) is not None
    matrix = None if costs is None else cost_array(costs)

    metrics = {}
    for key, tables in zip(rows, resampled, strict=True):
        behind = UnitCounts.of(truth[rows[key]], units[rows[key]])
        values = metric_values(tables, matrix, present=behind.by_class > 0)
        table = cells[rows[key]].sum(axis=0).reshape(3, 3).astype(np.int64)
        of_table = metrics_of(table, costs, Resampled(values, behind, clustered))
        metrics[key] = [_unless_few(metric, table) for metric in of_table]

    return metrics


def _resampled_tables(
    cells: Floats, rows: Mapping[Subgroup, Ints], truth: Ints, groups: Groups | None, seed: int
) -> list[Floats]:
    """Confusion tables (resamples, 3, 3) of each subgroup."""
    columns = np.zeros((len(cells), len(rows), 9))
    for place, of_subgroup in enumerate(rows.values()):
        columns[of_subgroup, place] = cells[of_subgroup]
    totals = resample_totals(
        columns.reshape(len(cells), -1), groups=groups, strata=truth, seed=seed
    )
    return list(np.moveaxis(totals.reshape(-1, len(rows), 3, 3), 1, 0))


def _unless_few(metric: Metric, table: Ints) -> Metric:
    """The metric, or none where too few cases of the subgroup are behind it."""
    label = next(
        (candidate for candidate in LABELS if metric.name.startswith(f"{candidate.lower()}_")), None
    )
    cases = int(table.sum() if label is None else table[LABELS.index(label)].sum())
    if cases >= MIN_CASES:
        return metric
    kind = "cases" if label is None else f"{label} cases"
    reason = f"{cases} {kind} of this subgroup are too few (it needs {MIN_CASES})"
    return Metric.without_value(metric.name, cases, f"not available: {reason}")
