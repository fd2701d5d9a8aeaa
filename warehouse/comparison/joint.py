"""Simultaneous bands and adjusted p values of many statistics, from one joint bootstrap (max-T).

All statistics are computed from the same seeded resamples of whole groups (or cases), so that what
they share, the cases, is shared in every resample: Westfall and Young (1993), Romano and Wolf,
Econometrica 73 (2005) 1237-1282. Each is studentised: divided by a standard error that is computed
again in each resample, by linearisation, from the same groups. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.judging.point_metrics import MAX_UNDEFINED, Floats, ratio
from warehouse.comparison.resampling import RESAMPLES, resample_weights

LEVEL = 0.95
# The standard error of a resample counts as at least this share of the study's. Where few cases
# differ, some resamples draw hardly any of them, and would make every band endless.
LEAST_ERROR = 0.8
NO_ERROR = 1e-12  # what rounding leaves of a statistic that does not vary


@dataclass(frozen=True)
class Statistic:
    """A sum of ratios of totals over units: each unit's part of every numerator and denominator,
    both (units, ratios). A mean over models has the weight of each in its numerator.
    """

    numerators: Floats
    denominators: Floats

    @classmethod
    def mean_of(cls, numerators: Floats, denominators: Floats, weights: Floats) -> Statistic:
        """The sum of ratios (units, ratios), each times its weight (ratios,).

        Ratios that have one denominator become one, which saves most of the work, and what cancels
        in them leaves nothing.
        """
        used_columns = np.nonzero(weights)[0]
        parts = numerators[:, used_columns] * weights[used_columns]
        wholes = denominators[:, used_columns]
        distinct_wholes, of_column = np.unique(wholes, axis=1, return_inverse=True)
        same_whole = of_column.reshape(-1, 1) == np.arange(distinct_wholes.shape[1])
        return cls(parts @ same_whole, np.ascontiguousarray(distinct_wholes))


@dataclass(frozen=True)
class Band:
    """A statistic with its standard error, its simultaneous band of LEVEL, and the adjusted p value
    of its hypothesis; None where it took no part, or asks for none.
    """

    value: float
    error: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Hypothesis:
    """A statistic is not worse than -margin, where `sign` is +1, or than margin, where it is -1."""

    sign: int
    margin: float


def joint_bands(
    statistics: Sequence[Statistic],
    hypotheses: Sequence[Hypothesis | None],
    resamples: int = RESAMPLES,
) -> list[Band]:
    """The bands of all statistics together, and the adjusted p values of their hypotheses.

    A statistic that does not vary, or is undefined in too many resamples, takes no part.
    """
    values, errors = _observed_values(statistics)
    scaled = _studentised(statistics, values, errors, resamples)
    takes_part = (errors > NO_ERROR) & (np.isnan(scaled).mean(axis=0) <= MAX_UNDEFINED)
    half = _quantile(np.abs(scaled[:, takes_part])) * errors
    greatest = _greatest(scaled, hypotheses, takes_part)

    bands = []
    for k, hypothesis in enumerate(hypotheses):
        value = float(values[k])
        error = float(errors[k])
        if not takes_part[k]:
            bands.append(Band(value, error))
            continue
        p_value = None
        if hypothesis is not None:
            reached = (hypothesis.sign * value + hypothesis.margin) / error
            # The study itself counts as one of the resamples, so that no p value is 0.
            p_value = float((1 + (greatest >= reached).sum()) / (resamples + 1))
        bands.append(Band(value, error, value - float(half[k]), value + float(half[k]), p_value))

    return bands


def _observed_values(statistics: Sequence[Statistic]) -> tuple[Floats, Floats]:
    """Values and standard errors, each (statistics,)."""
    if not statistics:
        return np.zeros(0), np.zeros(0)
    unit_weights = np.ones((1, len(statistics[0].numerators)))
    values, errors = _Batch(statistics).under(unit_weights)
    return values[0], errors[0]


def _studentised(
    statistics: Sequence[Statistic], values: Floats, errors: Floats, resamples: int
) -> Floats:
    """How many of its own standard errors each resample lies off, (resamples, statistics)."""
    if not statistics:
        return np.zeros((resamples, 0))

    batch = _Batch(statistics)
    blocks = []
    for weights in resample_weights(len(statistics[0].numerators), resamples):
        drawn_values, drawn_errors = batch.under(weights)
        blocks.append(ratio(drawn_values - values, np.maximum(drawn_errors, LEAST_ERROR * errors)))

    return np.concatenate(blocks)


class _Batch:
    """Statistics whose values and errors are computed together; those of one ratio in one go."""

    def __init__(self, statistics: Sequence[Statistic]) -> None:
        self.statistics = statistics
        self.single = [
            k for k, statistic in enumerate(statistics) if statistic.numerators.shape[1] == 1
        ]
        self.further = [k for k in range(len(statistics)) if k not in set(self.single)]
        units = len(statistics[0].numerators)
        tops = [statistics[k].numerators for k in self.single]
        wholes = [statistics[k].denominators for k in self.single]
        top = np.concatenate(tops, axis=1) if tops else np.zeros((units, 0))
        whole = np.concatenate(wholes, axis=1) if wholes else np.zeros((units, 0))
        self.sums = np.concatenate([top, whole, top**2, top * whole, whole**2], axis=1)

    def under(self, weights: Floats) -> tuple[Floats, Floats]:
        """Values and standard errors under each row of weights (rows, units), each (rows,
        statistics).
        """
        values = np.empty((len(weights), len(self.statistics)))
        errors = np.empty_like(values)
        values[:, self.single], errors[:, self.single] = self._singles(weights)
        for k in self.further:
            values[:, k], errors[:, k] = _of_ratios(self.statistics[k], weights)
        return values, errors

    def _singles(self, weights: Floats) -> tuple[Floats, Floats]:
        top, whole, top2, mixed, whole2 = np.split(weights @ self.sums, 5, axis=1)
        value = ratio(top, whole)
        # sum of (top - value whole)^2, multiplied out so that it follows from the five sums.
        squares = np.maximum(top2 - 2 * value * mixed + value**2 * whole2, 0.0)
        return value, ratio(np.sqrt(squares * _small_sample_factor(weights)), whole)


def _of_ratios(statistic: Statistic, weights: Floats) -> tuple[Floats, Floats]:
    """Value and standard error under each row of weights (rows, units), each (rows,).

    The error is that of the sum of influences of the units: what the statistic moves by when a unit
    counts once more.
    """
    top = weights @ statistic.numerators
    whole = weights @ statistic.denominators
    ratios = ratio(top, whole)
    per_total = ratio(np.ones_like(whole), whole)
    influences = (
        per_total @ statistic.numerators.T - (per_total * ratios) @ statistic.denominators.T
    )
    squares = (weights * influences**2).sum(axis=1) * _small_sample_factor(weights)

    return ratios.sum(axis=1), np.sqrt(squares)


def _small_sample_factor(weights: Floats) -> float:
    """What a sum of squares over few units is too small by."""
    units = weights.shape[1]
    return units / max(units - 1, 1)


def _quantile(distances: Floats) -> float:
    """What the greatest of several distances (resamples, statistics) exceeds in 1 - LEVEL of
    resamples.
    """
    if distances.shape[1] == 0:
        return float("nan")
    greatest = np.sort(np.nanmax(distances, axis=1, initial=0.0))
    # Rank ceil((n + 1) LEVEL) of n resamples, which errs on the wide side.
    place = int(np.ceil((len(greatest) + 1) * LEVEL)) - 1
    return float(greatest[min(place, len(greatest) - 1)])


def _greatest(
    scaled: Floats, hypotheses: Sequence[Hypothesis | None], takes_part: np.ndarray
) -> Floats:
    """The greatest distance in the favourable direction, over all hypotheses, (resamples,)."""
    signs = np.array(
        [0 if hypothesis is None else hypothesis.sign for hypothesis in hypotheses],
        dtype=np.float64,
    )
    tested = takes_part & (signs != 0)
    if not tested.any():
        return np.zeros(len(scaled))
    return np.asarray(np.nanmax(scaled[:, tested] * signs[tested], axis=1, initial=-np.inf))
