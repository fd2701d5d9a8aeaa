"""A share of cases with its interval: exact, and where cases come in groups the clustered bootstrap beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.intervals import (
    Groups,
    Interval,
    clopper_pearson,
    clustered_bootstrap,
    group_codes,
    interval_columns,
    wider,
)
from tasks.judging.metrics import CLUSTERED, EXACT, INDEPENDENT, Metric


def share_metric(
    name: str, hits: ArrayLike, groups: Groups | None, seed: int, note: str | None = None
) -> Metric:
    """The share of true `hits`, shape (cases,) with at least one case, and the wider of its two intervals.

    `groups`: each case's group, or None. A note says where the interval takes cases for independent.
    """
    own = np.asarray(hits, dtype=bool)
    exact, clustered = Interval(*clopper_pearson(int(own.sum()), len(own)), EXACT), None
    if group_codes(groups, len(own)) is not None:
        ends = clustered_bootstrap(
            lambda t: t[:, 0] / t[:, 1], own, np.ones(len(own)), groups=groups, seed=seed
        )
        clustered = Interval(*ends, CLUSTERED) if ends else None
    chosen = wider(exact, clustered) or exact
    notes = [note, INDEPENDENT if clustered is None else None]
    return Metric(
        name, float(own.mean()), chosen.low, chosen.high, chosen.method, len(own), "; ".join(filter(None, notes)) or None,
        **interval_columns(exact, clustered),
    )  # fmt: skip


def those(groups: Groups | None, chosen: ArrayLike) -> Groups | None:
    """The groups of the chosen cases. `chosen`: shape (cases,), bool."""
    return None if groups is None else [groups[int(i)] for i in np.flatnonzero(np.asarray(chosen))]
