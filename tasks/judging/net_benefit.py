"""The decision curve: what sending to ED by a threshold on p(ED) is worth against ED for all.

The net benefit of a threshold t is (caught emergencies - t / (1 - t) false alarms) / cases (Vickers
and Elkin, Medical Decision Making 26 (2006) 565-574). Whoever sends a case to ED from a risk of t
on holds one missed emergency as bad as (1 - t) / t false alarms. Sending nobody has net benefit 0,
so the net benefit itself is the difference from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.judging.calibration import BY_CASE
from tasks.judging.intervals import percentile_interval
from tasks.judging.metrics import CLUSTERED, INDEPENDENT, NO_INTERVAL
from tasks.judging.point_metrics import Floats, Ints
from tasks.judging.unit_draws import UnitDraws

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class NetBenefit:
    """One threshold, with 95 % intervals, paired by case for the difference from ED for all."""

    threshold: float
    n: int
    net_benefit: float
    low: float | None
    high: float | None
    always_ed: float
    over_always_ed: float
    over_always_ed_low: float | None
    over_always_ed_high: float | None
    method: str
    note: str | None


@dataclass(frozen=True)
class DecisionCurve:
    """A Statistic: net benefit of each threshold, then what it has over ED for all.

    `sums`: over the cases of each unit; a column per value, then the number of cases.
    """

    sums: Floats

    @classmethod
    def of(cls, p_ed: Floats, is_ed: Ints, draws: UnitDraws) -> DecisionCurve:
        """`p_ed` and `is_ed` are of shape (cases,)."""
        thresholds = np.array(THRESHOLDS)
        of_ed = np.where(is_ed[:, None] == 1, 1.0, -thresholds / (1 - thresholds))
        sent_to_ed = (p_ed[:, None] >= thresholds) * of_ed
        columns = np.column_stack([sent_to_ed, sent_to_ed - of_ed, np.ones(len(p_ed))])
        return cls(draws.sums(columns))

    def __call__(self, counts: Floats) -> Floats:
        totals = self.sums.T @ counts
        return np.asarray(totals[:-1] / totals[-1])


def net_benefits(curve: DecisionCurve, resampled: Floats, draws: UnitDraws) -> list[NetBenefit]:
    """One per threshold. `resampled`: the values of `curve` over the resamples of `draws`."""
    benefit, over = np.split(draws.all_once(curve), 2)
    reason = draws.why_no_interval(slice(None))
    ends = [None if reason else percentile_interval(values) for values in resampled]

    rows = []
    for i, threshold in enumerate(THRESHOLDS):
        low, high = ends[i] or (None, None)
        over_low, over_high = ends[len(THRESHOLDS) + i] or (None, None)
        rows.append(
            NetBenefit(
                threshold,
                len(draws.unit),
                float(benefit[i]),
                low,
                high,
                float(benefit[i] - over[i]),
                float(over[i]),
                over_low,
                over_high,
                *_method(draws, reason),
            )
        )

    return rows


def _method(draws: UnitDraws, reason: str | None) -> tuple[str, str | None]:
    if reason:
        return NO_INTERVAL, f"no interval: {reason}"
    return (CLUSTERED, None) if draws.clustered else (BY_CASE, INDEPENDENT)
