"""A share of cases with its interval: exact, and clustered by group where cases come in groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.judging.intervals import (
    Groups,
    Interval,
    clopper_pearson,
    clustered_bootstrap,
    group_codes,
    interval_columns,
    wider,
)
from tasks.judging.metrics import CLUSTERED, EXACT, INDEPENDENT, Metric, joined_notes


def share_metric(
    name: str, hits: ArrayLike, groups: Groups | None, seed: int, note: str | None = None
) -> Metric:
    """The share of true `hits`, shape (cases,), with the wider of its intervals. At least one case.

    `groups`: each case's group, or None. A note says where the interval assumes independent cases.
    """
    is_hit = np.asarray(hits, dtype=bool)
    low, high = clopper_pearson(int(is_hit.sum()), len(is_hit))
    exact = Interval(low, high, EXACT)

    clustered = _clustered_interval(is_hit, groups, seed)
    interval = wider(exact, clustered) or exact
    note = joined_notes(note, INDEPENDENT if clustered is None else None)
    return Metric(
        name,
        float(is_hit.mean()),
        interval.low,
        interval.high,
        interval.method,
        len(is_hit),
        note,
        **interval_columns(exact, clustered),
    )


def _clustered_interval(
    is_hit: NDArray[np.bool_], groups: Groups | None, seed: int
) -> Interval | None:
    """None without groups, or with too few of them."""
    if group_codes(groups, len(is_hit)) is None:
        return None

    ends = clustered_bootstrap(
        lambda totals: totals[:, 0] / totals[:, 1],
        is_hit,
        np.ones(len(is_hit)),
        groups=groups,
        seed=seed,
    )
    return Interval(*ends, CLUSTERED) if ends else None


def select_groups(groups: Groups | None, mask: ArrayLike) -> Groups | None:
    """The groups of the cases that `mask`, shape (cases,), is true for."""
    if groups is None:
        return None
    return [groups[int(row)] for row in np.flatnonzero(np.asarray(mask))]
