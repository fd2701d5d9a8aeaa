"""ED recall within subgroups (age band, voice, ...): a good average can hide a failing group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.judging.intervals import Groups
from tasks.judging.metrics import Metric, metric_table
from tasks.judging.point_metrics import MIN_UNITS

MIN_ED_CASES = MIN_UNITS  # below this an interval spans most of what is possible


def subgroup_recalls(
    subgroups: Sequence[Mapping[str, str]],
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    seed: int = 0,
) -> dict[tuple[str, str], Metric]:
    """ED recall by (field, value), with the same kinds of interval as the whole set's.

    `subgroups` maps field to value for each case; the metric's `n` counts the subgroup's ED cases.
    """
    keys = sorted({(field, str(value)) for case in subgroups for field, value in case.items()})
    recalls = {}
    for field, value in keys:
        rows = [row for row, case in enumerate(subgroups) if str(case.get(field)) == value]
        recalls[field, value] = _ed_recall(
            [labels[row] for row in rows],
            [decisions[row] for row in rows],
            [groups[row] for row in rows] if groups else None,
            seed,
        )
    return recalls


def _ed_recall(labels: list[str], decisions: list[str], groups: Groups | None, seed: int) -> Metric:
    ed_cases = labels.count("ED")
    if ed_cases < MIN_ED_CASES:
        reason = f"{ed_cases} ED cases of this subgroup are too few (it needs {MIN_ED_CASES})"
        return Metric.without_value("ed_recall", ed_cases, f"not available: {reason}")
    table = metric_table(labels, decisions, groups, seed=seed)
    return next(metric for metric in table if metric.name == "ed_recall")
