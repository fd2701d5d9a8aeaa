"""Interval estimates: exact for proportions, bootstrap for everything else, clustered by group.

Cases of one group (a condition, say) resemble each other, so an interval that treats them as
independent is too narrow; the bootstrap resamples whole groups. Thousands of resamples are one
matrix product: a statistic is a function of totals over cases (`resample_totals`), or, like an area
under a curve, of how often each unit was drawn (`UnitDraws`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from tasks.judging.point_metrics import MIN_UNITS, Floats, Ints, Row

Groups = Sequence[str | None]
# From how often each unit was drawn, shape (units, resamples), to values (statistics, resamples).
Statistic = Callable[[Floats], Floats]

EXACT = "exact (Clopper-Pearson) 95 %"
CLUSTERED = "bootstrap clustered by group 95 %"
STRATIFIED = "bootstrap within classes 95 %"
BY_CASE = "bootstrap by case 95 %"
INDEPENDENT = "assumes independent cases"
MAX_UNDEFINED = 0.05  # largest share of resamples in which a metric may be undefined (0/0)
UNDEFINED = "undefined in too many resamples"
BLOCK = 4_000_000  # multinomial counts held in memory at a time
# Cases times resamples at a time: what a statistic makes of them stays in the cache.
UNIT_BLOCK = 300_000


class Interval(NamedTuple):
    """An interval and the name of the method that gave it."""

    low: float
    high: float
    method: str


def clopper_pearson(k: float, n: int) -> tuple[float, float]:
    """Two-sided exact 95 % interval of a proportion with k successes in n cases, n >= 1 (Clopper,
    Pearson 1934). A count that is not whole, as of tied cases, lies between its neighbours.
    """
    # The tails of a binomial distribution are those of beta distributions, hence their quantiles.
    tail = (1 - 0.95) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def wider(a: Interval | None, b: Interval | None) -> Interval | None:
    """The wider of two intervals, `a` if equally wide; where one is missing, the other."""
    if a is None or b is None:
        return a or b
    return b if b.high - b.low > a.high - a.low else a


def interval_columns(exact: Interval | None = None, clustered: Interval | None = None) -> Row:
    """Columns exact_low, exact_high, clustered_low, clustered_high; None for a missing interval."""
    return {
        "exact_low": exact and exact.low,
        "exact_high": exact and exact.high,
        "clustered_low": clustered and clustered.low,
        "clustered_high": clustered and clustered.high,
    }


def metric_row(
    metric: str,
    value: float | None,
    n: int,
    note: str | None = None,
    interval: Interval | None = None,
    exact: Interval | None = None,
    clustered: Interval | None = None,
) -> Row:
    """One metric of one set, as a row of the table `metric` without its keys.

    `n`: the denominator of a proportion, otherwise the number of cases; `interval`: the one that is
    shown, beside which `exact` (of a proportion) and `clustered` (of groups) stand. The note says
    why there is no value or no interval, and what is assumed.
    """
    low, high, method = interval or (None, None, "none")
    return {
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "method": method,
        "n": n,
        "note": note,
        **interval_columns(exact, clustered),
    }


def joined_notes(*notes: str | None) -> str | None:
    """The notes that there are, separated by semicolons; None without any."""
    return "; ".join(note for note in notes if note) or None


def too_few(count: int, clustered: bool) -> str:
    """Why no bootstrap rests on so few units, which are groups or cases."""
    units = "group" if clustered else "case"
    counted = f"1 {units} is" if count == 1 else f"{count} {units}s are"
    return f"{counted} too few for a bootstrap (it needs {MIN_UNITS})"


def unit_codes(groups: Groups | None, cases: int) -> tuple[Ints, bool]:
    """Integer code of the unit that each case is resampled with, shape (cases,): its group, or the
    case itself where it has none; and whether the units are groups.
    """
    if groups is None or all(group is None for group in groups):
        return np.arange(cases, dtype=np.int64), False

    names = sorted({group for group in groups if group is not None})
    code_of = {name: code for code, name in enumerate(names)}
    codes = [
        len(names) + row if group is None else code_of[group] for row, group in enumerate(groups)
    ]
    return np.unique(np.asarray(codes), return_inverse=True)[1].astype(np.int64), True


def resample_totals(
    contributions: ArrayLike,
    *,
    groups: Groups | None,
    strata: ArrayLike | None = None,
    seed: int,
    resamples: int = 2000,
) -> Floats:
    """Bootstrap totals of per-case contributions, shape (cases, k) -> (resamples, k).

    With groups, whole groups are drawn with replacement. Without, cases are drawn within each
    stratum (the true class, say), which assumes independent cases. To draw how often each distinct
    unit occurs has the same distribution as to draw indices, is faster, and does not depend on the
    order of cases or on group names.
    """
    values = np.asarray(contributions, dtype=np.float64)
    rng = np.random.default_rng(seed)
    codes, clustered = unit_codes(groups, len(values))
    if clustered:
        layers = [unit_sums(values, codes, int(codes.max()) + 1)]
    else:
        stratum = np.zeros(len(values)) if strata is None else np.asarray(strata)
        layers = [values[stratum == one] for one in np.unique(stratum)]

    totals = np.zeros((resamples, values.shape[1]))
    for units in layers:
        distinct, counts = np.unique(units, axis=0, return_counts=True)
        step = max(1, BLOCK // len(distinct))
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            times_drawn = rng.multinomial(len(units), counts / len(units), size=size)
            totals[start : start + size] += times_drawn.astype(np.float64) @ distinct

    return totals


def percentile_interval(resampled: ArrayLike) -> tuple[float, float] | None:
    """95 % percentile interval of resampled values; None if more than MAX_UNDEFINED are NaN."""
    values = np.asarray(resampled, dtype=np.float64)
    if len(values) == 0 or np.isnan(values).mean() > MAX_UNDEFINED:
        return None
    low, high = np.nanquantile(values, [(1 - 0.95) / 2, (1 + 0.95) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class UnitDraws:
    """The units of a set's cases, shape (cases,), and how they are drawn."""

    unit: Ints
    units: int
    clustered: bool  # whether the units are groups
    seed: int
    resamples: int = 2000

    @classmethod
    def of(
        cls, features: ArrayLike, groups: Groups | None, seed: int, resamples: int = 2000
    ) -> UnitDraws:
        """`features` (cases, k): all that the statistics read of a case. Units are numbered by
        their sums, so that neither the order of cases nor names of groups change a resample.
        """
        values = np.asarray(features, dtype=np.float64)
        codes, clustered = unit_codes(groups, len(values))
        sums = unit_sums(values, codes, int(codes.max(initial=-1)) + 1)
        place = np.empty(len(sums), dtype=np.int64)
        place[np.lexsort(sums.T)] = np.arange(len(sums))
        return cls(place[codes], len(sums), clustered, seed, resamples)

    @property
    def method(self) -> tuple[str, str | None]:
        """The name of an interval by these draws, and what it assumes."""
        return (CLUSTERED, None) if self.clustered else (BY_CASE, INDEPENDENT)

    def sums(self, columns: Floats) -> Floats:
        return unit_sums(columns, self.unit, self.units)

    def all_once(self, statistic: Statistic) -> Floats:
        """The statistic of the set itself, shape (statistics,)."""
        return statistic(np.ones((self.units, 1)))[:, 0]

    def resampled(self, statistics: Sequence[Statistic]) -> list[Floats]:
        """Values of each statistic, shape (statistics, resamples)."""
        rng = np.random.default_rng(self.seed)
        size = max(1, UNIT_BLOCK // max(1, len(self.unit)))
        blocks = []
        for start in range(0, self.resamples, size):
            resamples = min(size, self.resamples - start)
            drawn_units = rng.integers(self.units, size=(resamples, self.units))
            places = drawn_units * resamples + np.arange(resamples)[:, None]
            times_drawn = np.bincount(places.ravel(), minlength=self.units * resamples)
            counts = times_drawn.astype(np.float64).reshape(self.units, resamples)
            blocks.append([statistic(counts) for statistic in statistics])

        return [np.concatenate(values, axis=1) for values in zip(*blocks, strict=True)]

    def why_no_interval(self, rows: Ints | slice) -> str | None:
        """Why there can be no interval of what rests on these cases; None where there can be one."""
        behind = len(np.unique(self.unit[rows]))
        return None if behind >= MIN_UNITS else too_few(behind, self.clustered)


def unit_sums(columns: Floats, unit: Ints, units: int) -> Floats:
    """Sums over the cases of each unit: (cases, k) -> (units, k)."""
    return np.stack(
        [np.bincount(unit, weights=column, minlength=units) for column in columns.T], axis=1
    )
