"""Metrics of the probability of a class, which no decision rule
changes, each with its 95 % interval.

AUROC, average precision, calibration slope and intercept, of a class against the others. All parts
of a set (the whole, its subgroups) and all classes share one set of resamples: whole groups, or
without groups single cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.judging.calibration import BY_CASE
from tasks.judging.discrimination import RANKING_METRICS, Ranking
from tasks.judging.intervals import percentile_interval
from tasks.judging.metrics import CLUSTERED, INDEPENDENT, Metric
from tasks.judging.point_metrics import Floats, Ints
from tasks.judging.recalibration import (
    RECALIBRATION_METRICS,
    Recalibration,
    logits,
    why_not_fitted,
)
from tasks.judging.unit_draws import Statistic, UnitDraws
from tasks.spec import LABELS, Label

SCORE_METRICS = (*RANKING_METRICS, *RECALIBRATION_METRICS)


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


@dataclass(frozen=True)
class _Planned:
    """What is to be computed of one ClassScores: a statistic, or the reason why there is none."""

    names: tuple[str, ...]
    statistic: Statistic | None
    reason: str | None


def score_metrics(
    parts: Sequence[ClassScores], draws: UnitDraws, also: Sequence[Statistic] = ()
) -> tuple[list[list[Metric]], list[Floats]]:
    """The metrics of SCORE_METRICS of each part, named e.g. `ed_auroc`; and the values of further
    statistics over the same resamples.
    """
    plans = [_plan(part, draws) for part in parts]
    statistics = [
        planned.statistic for plan in plans for planned in plan if planned.statistic is not None
    ]
    values = draws.resampled([*statistics, *also])

    remaining_values = iter(values)
    metrics = [
        _part_metrics(part, plan, remaining_values, draws)
        for part, plan in zip(parts, plans, strict=True)
    ]
    return metrics, values[len(statistics) :]


def _part_metrics(
    part: ClassScores,
    plan: Sequence[_Planned],
    remaining_values: Iterator[Floats],
    draws: UnitDraws,
) -> list[Metric]:
    """Takes from `remaining_values` the resampled values of each statistic of the plan."""
    metrics: list[Metric] = []
    for planned in plan:
        resampled = None if planned.statistic is None else next(remaining_values)
        metrics += _metrics(part, planned, resampled, draws)

    return metrics


def _plan(part: ClassScores, draws: UnitDraws) -> list[_Planned]:
    if reason := part.why_not_ranked():
        return [_Planned(SCORE_METRICS, None, reason)]

    positive = part.is_positive
    unit = draws.unit[part.rows]
    ranking = Ranking.of(part.scores, positive, unit, draws.units)

    x = logits(part.scores)
    if reason := why_not_fitted(x, positive):
        line = _Planned(RECALIBRATION_METRICS, None, reason)
    else:
        recalibration = Recalibration.of(x, positive, unit, draws.units)
        line = _Planned(RECALIBRATION_METRICS, recalibration, None)

    return [_Planned(RANKING_METRICS, ranking, None), line]


def _metrics(
    part: ClassScores, planned: _Planned, resampled: Floats | None, draws: UnitDraws
) -> list[Metric]:
    names = [f"{part.label.lower()}_{name}" for name in planned.names]
    cases = len(part.rows)
    if planned.statistic is None or resampled is None:
        note = f"not available: {planned.reason}"
        return [Metric.without_value(name, cases, note) for name in names]

    positive = part.is_positive == 1
    reasons = (draws.why_no_interval(part.rows[rows]) for rows in (positive, ~positive))
    reason = next((reason for reason in reasons if reason), None)
    return [
        _metric(name, float(value), cases, None if reason else of_metric, draws, reason)
        for name, value, of_metric in zip(
            names, draws.all_once(planned.statistic), resampled, strict=True
        )
    ]


def _metric(
    name: str,
    value: float,
    cases: int,
    resampled: Floats | None,
    draws: UnitDraws,
    reason: str | None,
) -> Metric:
    interval = None if resampled is None else percentile_interval(resampled)
    if interval is None:
        why_not = f"no interval: {reason or 'undefined in too many resamples'}"
        return Metric.without_interval(name, value, cases, why_not)
    method, note = (CLUSTERED, None) if draws.clustered else (BY_CASE, INDEPENDENT)
    return Metric(name, value, *interval, method, cases, note)
