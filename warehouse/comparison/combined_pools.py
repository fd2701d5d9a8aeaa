"""The mean over adapters of several machines, from what is published of each of them.

A joint band needs the decisions of all adapters on every case, which stay on the machine that made
them. Of the published intervals follows a band that is too wide rather than too narrow: adapters
are judged on the same cases, and the standard deviation of a mean is at most the mean of the
standard deviations, however closely they go together (Minkowski's inequality).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from warehouse.comparison.pooled import verdict_of_band
from warehouse.comparison.precision_pools import RULE_OF, range_of
from warehouse.comparison.resampling import CANNOT_CONCLUDE
from warehouse.comparison.seed_spread import SeedSpread

JOINT = "joint bootstrap; for all figures of the pool at once"
AT_MOST = "at most: the adapters' own intervals, averaged; each for one figure"

PublishedRow = dict[str, Any]  # value by column


def combined_pool(adapters: Sequence[PublishedRow]) -> PublishedRow | None:
    """The columns of `precision_summary` over rows of `precision_comparison`, one for each adapter.

    Adapters that beat no constant answer at either precision are left out; None if no other is
    left.
    """
    averaged = [row for row in adapters if row["is_informed"] is not False]
    if not averaged:
        return None

    ratios = [row["bytes_ratio"] for row in averaged]
    pool: PublishedRow = {
        "bytes_ratio": None if None in ratios else fmean(ratios),
        "note": averaged[0]["note"],
        "adapters": len(averaged),
        "bands": AT_MOST,
    }
    for metric in RULE_OF:
        pool |= _figure(metric, averaged)

    return pool


def _figure(metric: str, averaged: Sequence[PublishedRow]) -> PublishedRow:
    """The columns of a metric."""
    difference = _mean(averaged, f"{metric}_diff")
    lowest, highest = range_of([row[f"{metric}_diff"] for row in averaged]) or (None, None)
    figure = {
        metric: _mean(averaged, metric),
        f"reference_{metric}": _mean(averaged, f"reference_{metric}"),
        f"{metric}_diff": difference,
        f"{metric}_low": _mean(averaged, f"{metric}_low"),
        f"{metric}_high": _mean(averaged, f"{metric}_high"),
        f"{metric}_seed_sd": None,
        f"{metric}_seed_low": None,
        f"{metric}_seed_high": None,
        f"{metric}_lowest": lowest,
        f"{metric}_highest": highest,
    }

    spread = None if difference is None else _spread(metric, averaged)
    if difference is not None and spread is not None:
        half = spread.half_width(len(averaged))
        figure |= {
            f"{metric}_seed_sd": spread.sd,
            f"{metric}_seed_low": difference - half,
            f"{metric}_seed_high": difference + half,
        }

    low, high, seed_low, seed_high = (
        figure[f"{metric}_{end}"] for end in ("low", "high", "seed_low", "seed_high")
    )
    verdict = CANNOT_CONCLUDE
    if low is not None and high is not None:
        verdict = verdict_of_band(metric, low, high, seed_low, seed_high)

    return {**figure, f"{metric}_verdict": verdict}


def _mean(averaged: Sequence[PublishedRow], column: str) -> float | None:
    """The mean of a column; of the ends of intervals it is that of the mean, with their mean width."""
    values = [row[column] for row in averaged]
    return None if None in values else fmean(values)


def _spread(metric: str, averaged: Sequence[PublishedRow]) -> SeedSpread | None:
    """Between the seeds of a recipe; None where none has two."""
    by_recipe: dict[str, list[float]] = {}
    for row in averaged:
        by_recipe.setdefault(row["recipe"], []).append(row[f"{metric}_diff"])

    return SeedSpread.of(by_recipe.values())
