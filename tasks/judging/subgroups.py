"""ED recall within subgroups (age band, voice, spelling): a good average can hide a group that is failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.judging.intervals import Groups
from tasks.judging.metrics import NO_INTERVAL, Metric, metric_table
from tasks.judging.point_metrics import MIN_UNITS

MIN_ED_CASES = MIN_UNITS  # below this an interval spans most of what is possible


def subgroup_recalls(
    subgroups: Sequence[Mapping[str, str]],
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    seed: int = 0,
) -> dict[tuple[str, str], Metric]:
    """ED recall by (field, value), each with the interval that the whole set's would have; n is its ED cases."""
    keys = sorted({(field, str(value)) for case in subgroups for field, value in case.items()})
    return {key: _recall(key, subgroups, labels, decisions, groups, seed) for key in keys}


def _recall(
    key: tuple[str, str], subgroups: Sequence[Mapping[str, str]], labels: Sequence[str], decisions: Sequence[str],
    groups: Groups | None, seed: int,
) -> Metric:  # fmt: skip
    field, value = key
    rows = [i for i, case in enumerate(subgroups) if str(case.get(field)) == value]
    ed = sum(labels[i] == "ED" for i in rows)
    if ed < MIN_ED_CASES:
        return _missing(ed, f"{ed} ED cases of this subgroup are too few (it needs {MIN_ED_CASES})")

    def only(values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in rows]

    table = metric_table(only(labels), only(decisions), only(groups) if groups else None, seed=seed)
    return next(metric for metric in table if metric.name == "ed_recall")


def _missing(n: int, why: str) -> Metric:
    return Metric("ed_recall", None, None, None, NO_INTERVAL, n, f"not available: {why}")
