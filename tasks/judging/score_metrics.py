"""Metrics of the probability of a class, which no decision rule changes, each with its 95 % interval;
and the decision curve of p(ED).

AUROC, average precision, calibration slope and intercept, of a class against the others. All parts
of a set (the whole, its subgroups) and all classes share one set of resamples: whole groups, or
without groups single cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.judging.calibration import (
    RECALIBRATION_METRICS,
    Recalibration,
    logits,
    why_not_fitted,
)
from tasks.judging.intervals import Statistic, UnitDraws, percentile_interval
from tasks.judging.metrics import BY_CASE, CLUSTERED, INDEPENDENT, NO_INTERVAL, Metric
from tasks.judging.point_metrics import Floats, Ints, ratio
from tasks.spec import LABELS, Label

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RANKING_METRICS = ("auroc", "average_precision")
SCORE_METRICS = (*RANKING_METRICS, *RECALIBRATION_METRICS)
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the decision curve


@dataclass(frozen=True)
class ClassScores:
    """The probability of a class on some cases of a set.

    `rows`: the cases, as positions in the set; `least`: how many cases of the class, and others,
    the metrics need.
    """

    label: Label
    p: Floats  # (cases of the set, 3)
    truth: Ints  # positions in LABELS, (cases of the set,)
    rows: Ints
    least: int = 1

    @property
    def scores(self) -> Floats:
        return np.asarray(self.p[self.rows, LABELS.index(self.label)])

    @property
    def is_positive(self) -> Ints:
        return (self.truth[self.rows] == LABELS.index(self.label)).astype(np.int64)

    def why_not_ranked(self) -> str | None:
        """Why the metrics are not available; None where those of RANKING_METRICS are."""
        positives = int(self.is_positive.sum())
        for cases, kind in (
            (positives, self.label),
            (len(self.rows) - positives, f"non-{self.label}"),
        ):
            if cases == 0:
                return f"no {kind} case in this set"
            if cases < self.least:
                return f"{cases} {kind} cases of this subgroup are too few (it needs {self.least})"
        return None


def score_metrics(
    parts: Sequence[ClassScores], draws: UnitDraws, also: Sequence[Statistic] = ()
) -> tuple[list[list[Metric]], list[Floats]]:
    """The metrics of SCORE_METRICS of each part, named e.g. `ed_auroc`; and the values of further
    statistics over the same resamples.
    """
    plans = [_plan(part, draws) for part in parts]
    statistics = [
        planned for plan in plans for planned in plan.values() if not isinstance(planned, str)
    ]
    values = draws.resampled([*statistics, *also])
    remaining_values = iter(values)

    metrics = []
    for part, plan in zip(parts, plans, strict=True):
        of_part: list[Metric] = []
        for names, planned in plan.items():
            resampled = None if isinstance(planned, str) else next(remaining_values)
            of_part += _metrics(part, names, planned, resampled, draws)
        metrics.append(of_part)

    return metrics, values[len(statistics) :]


def _plan(part: ClassScores, draws: UnitDraws) -> dict[tuple[str, ...], Statistic | str]:
    """The statistic that gives these metrics of a part, or the reason why there is none."""
    if reason := part.why_not_ranked():
        return {SCORE_METRICS: reason}

    positive = part.is_positive
    unit = draws.unit[part.rows]
    x = logits(part.scores)
    line = why_not_fitted(x, positive) or Recalibration.of(x, positive, unit, draws.units)
    ranking = Ranking.of(part.scores, positive, unit, draws.units)
    return {RANKING_METRICS: ranking, RECALIBRATION_METRICS: line}


def _metrics(
    part: ClassScores,
    names: tuple[str, ...],
    planned: Statistic | str,
    resampled: Floats | None,
    draws: UnitDraws,
) -> list[Metric]:
    names = tuple(f"{part.label.lower()}_{name}" for name in names)
    cases = len(part.rows)
    if isinstance(planned, str) or resampled is None:
        return [
            Metric.without_interval(name, None, cases, f"not available: {planned}")
            for name in names
        ]

    positive = part.is_positive == 1
    reasons = (draws.why_no_interval(part.rows[rows]) for rows in (positive, ~positive))
    reason = next((reason for reason in reasons if reason), None)

    metrics = []
    for name, value, of_metric in zip(names, draws.all_once(planned), resampled, strict=True):
        interval = None if reason else percentile_interval(of_metric)
        if interval is None:
            why_not = f"no interval: {reason or 'undefined in too many resamples'}"
            metrics.append(Metric.without_interval(name, float(value), cases, why_not))
        else:
            method, note = _method(draws)
            metrics.append(Metric(name, float(value), *interval, method, cases, note))

    return metrics


def _method(draws: UnitDraws) -> tuple[str, str | None]:
    """How resamples were drawn, and what that assumes."""
    return (CLUSTERED, None) if draws.clustered else (BY_CASE, INDEPENDENT)


@dataclass(frozen=True)
class Ranking:
    """A Statistic: AUROC and average precision, those of scikit-learn with the weights of each
    resample as `sample_weight`.

    A level is a score of at least one positive case; levels fall. Each matrix, shape (levels,
    units), counts cases between a level and the next higher one, the lower level included.
    `tied`: negatives whose score is the level; `negatives`: all of them, shape (units,).
    """

    positive: csr_array
    negative: csr_array
    tied: csr_array
    negatives: Floats

    @classmethod
    def of(cls, scores: Floats, is_positive: Ints, unit: Ints, units: int) -> Ranking:
        """All arguments but the last are of shape (cases,)."""
        from scipy.sparse import coo_array

        truth = is_positive.astype(bool)
        levels = np.unique(scores[truth])[::-1]
        level = np.searchsorted(-levels, -scores, side="left")

        def counted(mask: NDArray[np.bool_]) -> csr_array:
            ones = np.ones(int(mask.sum()))
            shape = (len(levels), units)
            return coo_array((ones, (level[mask], unit[mask])), shape=shape).tocsr()

        reached = ~truth & (level < len(levels))
        tied = reached.copy()
        tied[reached] = levels[level[reached]] == scores[reached]
        negatives = np.bincount(unit[~truth], minlength=units).astype(np.float64)

        return cls(counted(truth), counted(reached), counted(tied), negatives)

    def __call__(self, counts: Floats) -> Floats:
        """Shape (2, resamples), NaN for a resample without positives or without negatives.

        Average precision is the step function of the precision over the recall, without
        interpolation.
        """
        at_level = self.positive @ counts
        caught = np.cumsum(at_level, axis=0)
        alarms = np.cumsum(self.negative @ counts, axis=0)
        positives = caught[-1]
        negatives = self.negatives @ counts

        precision = caught / np.maximum(caught + alarms, 1.0)
        average = ratio(np.einsum("lr,lr->r", at_level, precision), positives)
        # After the average precision, which counts ties in full; in the area each is one half.
        if self.tied.nnz:
            alarms -= (self.tied @ counts) / 2

        above = ratio(np.einsum("lr,lr->r", at_level, alarms), positives * negatives)
        area = 1 - above
        return np.stack([area, np.where(negatives > 0, average, np.nan)])


@dataclass(frozen=True)
class DecisionCurve:
    """A Statistic: net benefit of each threshold on p(ED), then what it has over ED for all.

    The net benefit of a threshold t is (caught emergencies - t / (1 - t) false alarms) / cases
    (Vickers and Elkin, Medical Decision Making 26 (2006) 565-574): whoever sends a case to ED from
    a risk of t on holds one missed emergency as bad as (1 - t) / t false alarms. Sending nobody has
    net benefit 0.

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


def net_benefits(
    curve: DecisionCurve, resampled: Floats, draws: UnitDraws
) -> list[dict[str, float | int | str | None]]:
    """A row of the table `net_benefit` per threshold, with 95 % intervals, paired by case for the
    difference from ED for all. `resampled`: the values of `curve` over the resamples of `draws`.
    """
    benefit, over = np.split(draws.all_once(curve), 2)
    reason = draws.why_no_interval(slice(None))
    ends = [
        (None if reason else percentile_interval(values)) or (None, None) for values in resampled
    ]
    method, note = (NO_INTERVAL, f"no interval: {reason}") if reason else _method(draws)

    return [
        {
            "threshold": threshold,
            "n": len(draws.unit),
            "net_benefit": float(benefit[i]),
            "low": ends[i][0],
            "high": ends[i][1],
            "always_ed": float(benefit[i] - over[i]),
            "over_always_ed": float(over[i]),
            "over_always_ed_low": ends[len(THRESHOLDS) + i][0],
            "over_always_ed_high": ends[len(THRESHOLDS) + i][1],
            "method": method,
            "note": note,
        }
        for i, threshold in enumerate(THRESHOLDS)
    ]
