"""The verdicts of many studies of a pair at once: how often each would be given.

What `paired.compare` does for one pair, with the same resamples, intervals and rules.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.judging.point_metrics import (
    MIN_UNITS,
    Floats,
    Ints,
    ratio,
    undefined_too_often,
)
from warehouse.comparison.differences import PROPORTIONS, tango_interval
from warehouse.comparison.resampling import (
    CANNOT_CONCLUDE,
    INFERIOR,
    NOT_INFERIOR,
    RESAMPLES,
    SEED,
    resample_weights,
    verdict_of,
)

CLASSES = 3
STUDIES_AT_ONCE = 500
UNITS_AT_ONCE = 400_000  # of all studies that are judged in one go
_CELLS = np.indices((CLASSES,) * 3).reshape(3, -1)
_TRUTH, _AT_4BIT, _AT_8BIT = _CELLS
_GAIN = (_AT_4BIT == _TRUTH).astype(int) - (_AT_8BIT == _TRUTH)
# (3, 27), one row a label: its cases, and those that a model decides to be of it, or rightly.
_ACTUAL, _DECIDED_4BIT, _DECIDED_8BIT = (
    (axis == np.arange(CLASSES)[:, None]).astype(np.float64) for axis in _CELLS
)
_HITS_4BIT = _ACTUAL * _DECIDED_4BIT
_HITS_8BIT = _ACTUAL * _DECIDED_8BIT
# (27, sums): what of the cells a metric's difference is computed from.
SUMS = {
    "accuracy": np.stack([_GAIN, np.ones_like(_GAIN)], axis=1).astype(np.float64),
    "ed_recall": np.stack([_GAIN, np.ones_like(_GAIN)], axis=1)
    * (_TRUTH == 0)[:, None].astype(float),
    "macro_f1": np.concatenate(
        [_ACTUAL, _HITS_4BIT, _HITS_8BIT, _ACTUAL + _DECIDED_4BIT, _ACTUAL + _DECIDED_8BIT]
    ).T,
}


@dataclass(frozen=True)
class VerdictShares:
    """Shares of studies with each verdict; they add up to 1."""

    not_inferior: float
    inferior: float

    @property
    def cannot_conclude(self) -> float:
        return 1 - self.not_inferior - self.inferior


def verdict_shares(
    metric: str, studies: Ints, grouped: bool, resamples: int = RESAMPLES
) -> VerdictShares:
    """How often each verdict is given on a metric (accuracy, ed_recall or macro_f1).

    `studies` (studies, groups, 27): cases by group and cell (true label, decision at 4 bits, at 8
    bits); without groups (studies, 1, 27).
    """
    counts: Counter[str] = Counter()
    step = max(1, min(STUDIES_AT_ONCE, UNITS_AT_ONCE // studies.shape[1]))
    for start in range(0, len(studies), step):
        counts.update(_verdicts(metric, studies[start : start + step], grouped, resamples))

    return VerdictShares(
        counts[NOT_INFERIOR] / len(studies),
        counts[INFERIOR] / len(studies),
    )


def _verdicts(metric: str, studies: Ints, grouped: bool, resamples: int) -> list[str]:
    """The verdict on each of some studies."""
    differences = _resampled_differences(metric, studies, grouped, resamples)
    enough = _units_behind(metric, studies, grouped) >= MIN_UNITS
    undefined = np.isnan(differences).any(axis=0)
    bounds = np.empty((2, len(studies)))
    bounds[:, ~undefined] = np.percentile(differences[:, ~undefined], [2.5, 97.5], axis=0)

    for study in np.nonzero(undefined)[0]:
        enough[study] &= not undefined_too_often(differences[:, study])
        if enough[study]:
            bounds[:, study] = np.nanpercentile(differences[:, study], [2.5, 97.5])

    totals = studies.sum(axis=1)
    return [
        _verdict(metric, totals[study], bounds[:, study] if enough[study] else None)
        for study in range(len(studies))
    ]


def _verdict(metric: str, totals: Ints, bounds: Floats | None) -> str:
    """The verdict on a study with these cells (27,) and bootstrap bounds, None where there are too
    few groups, or cases where these have no groups.
    """
    if bounds is None:
        return CANNOT_CONCLUDE

    intervals = [(float(bounds[0]), float(bounds[1]))]
    if metric in PROPORTIONS:
        included = _TRUTH == 0 if metric == "ed_recall" else np.ones(len(totals), dtype=bool)
        cases = int(totals[included].sum())
        b = int(totals[included & (_GAIN == 1)].sum())
        c = int(totals[included & (_GAIN == -1)].sum())
        intervals.append(_tango(b, c, cases))

    low = min(low for low, _ in intervals)
    high = max(high for _, high in intervals)
    return CANNOT_CONCLUDE if low == high else verdict_of(low, high)


def _resampled_differences(metric: str, studies: Ints, grouped: bool, resamples: int) -> Floats:
    """4 bits minus 8 bits of each resample of each study, (resamples, studies)."""
    sums = SUMS[metric]
    if grouped:
        by_unit = (studies @ sums).transpose(1, 0, 2)
        weights = _weights(len(by_unit), resamples)
        totals = (weights @ by_unit.reshape(len(by_unit), -1)).reshape(resamples, len(studies), -1)
    else:
        totals = _resampled_cases(studies[:, 0], resamples) @ sums

    if metric in PROPORTIONS:
        return ratio(totals[..., 0], totals[..., 1])
    return _macro_f1_differences(totals, (studies.sum(axis=1) @ sums)[:, :CLASSES] > 0)


def _macro_f1_differences(totals: Floats, has_cases: NDArray[np.bool_]) -> Floats:
    """Differences (resamples, studies) from SUMS of macro F1, over the labels `has_cases` (studies,
    3) in each study; NaN for a resample without one of them.
    """
    actual, hits_4bit, hits_8bit, both_4bit, both_8bit = (
        totals[..., start : start + CLASSES] for start in range(0, 5 * CLASSES, CLASSES)
    )
    f1 = ratio(2 * hits_4bit, both_4bit) - ratio(2 * hits_8bit, both_8bit)
    f1 = np.where(actual > 0, f1, np.where(has_cases, np.nan, 0.0))
    return np.asarray(f1.sum(-1) / np.maximum(has_cases.sum(-1), 1))


def _resampled_cases(totals: Ints, resamples: int) -> Floats:
    """Bootstrap samples of the cases of each study: cells (studies,
    27) -> (resamples, studies, 27).

    Cases of one cell are interchangeable, so how often each cell is drawn is drawn at once.
    """
    rng = np.random.default_rng(SEED)
    cases = totals.sum(-1)
    shares = totals / cases[:, None]
    size = (resamples, len(totals))
    return rng.multinomial(np.broadcast_to(cases, size), shares).astype(np.float64)


def _units_behind(metric: str, studies: Ints, grouped: bool) -> Ints:
    """Groups (or cases) behind the metric in each study; as `UnitCounts.behind`."""
    by_label = studies.reshape(*studies.shape[:2], CLASSES, -1).sum(-1)
    counted = (by_label > 0).sum(axis=1) if grouped else by_label.sum(axis=1)
    if metric == "ed_recall":
        return np.asarray(counted[:, 0])
    if metric == "macro_f1":
        # A label without units is left out of the mean, so it is not the fewest either.
        behind = np.where(counted > 0, counted, np.iinfo(np.int64).max)
        return np.asarray(behind.min(axis=1))

    total = by_label.sum(-1)
    return np.asarray((total > 0).sum(axis=1) if grouped else total.sum(axis=1))


@lru_cache(maxsize=2)
def _weights(units: int, resamples: int) -> Floats:
    return np.concatenate(list(resample_weights(units, resamples)))


@lru_cache(maxsize=100_000)
def _tango(b: int, c: int, cases: int) -> tuple[float, float]:
    return tango_interval(b, c, cases)
