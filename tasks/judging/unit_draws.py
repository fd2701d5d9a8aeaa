"""Bootstrap of statistics that need more than totals of cases, such as an area under a curve.

A resample says how often each unit (a group, or without groups a case) was drawn. Every statistic
of a set takes the same resamples, since drawing costs more than most statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.intervals import Groups, group_codes, unit_codes
from tasks.judging.point_metrics import MIN_UNITS, Floats, Ints, too_few

BLOCK = (
    300_000  # cases times resamples at a time: what a statistic makes of them stays in the cache
)

# From how often each unit was drawn, shape (units, resamples), to values (statistics, resamples).
Statistic = Callable[[Floats], Floats]


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
        their sums, so that neither the order of cases nor the names of groups change a resample.
        """
        values = np.asarray(features, dtype=np.float64)
        codes = unit_codes(groups, len(values))
        sums = unit_sums(values, codes, int(codes.max(initial=-1)) + 1)
        place = np.empty(len(sums), dtype=np.int64)
        place[np.lexsort(sums.T)] = np.arange(len(sums))
        clustered = group_codes(groups, len(values)) is not None
        return cls(place[codes], len(sums), clustered, seed, resamples)

    def sums(self, columns: Floats) -> Floats:
        """Sums over the cases of each unit: (cases, k) -> (units, k)."""
        return unit_sums(columns, self.unit, self.units)

    def all_once(self, statistic: Statistic) -> Floats:
        """The statistic of the set itself, shape (statistics,)."""
        return statistic(np.ones((self.units, 1)))[:, 0]

    def resampled(self, statistics: Sequence[Statistic]) -> list[Floats]:
        """Values of each statistic, shape (statistics, resamples)."""
        rng = np.random.default_rng(self.seed)
        size = max(1, BLOCK // max(1, len(self.unit)))
        blocks: list[list[Floats]] = [[] for _ in statistics]

        for start in range(0, self.resamples, size):
            counts = self._draw(rng, min(size, self.resamples - start))
            for block, statistic in zip(blocks, statistics, strict=True):
                block.append(statistic(counts))

        return [np.concatenate(block, axis=1) for block in blocks]

    def _draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """How often each unit is drawn, shape (units, resamples)."""
        drawn_units = rng.integers(self.units, size=(resamples, self.units))
        places = drawn_units * resamples + np.arange(resamples)[:, None]
        counts = np.bincount(places.ravel(), minlength=self.units * resamples)
        return counts.astype(np.float64).reshape(self.units, resamples)

    def why_no_interval(self, rows: Ints | slice) -> str | None:
        """Why there can be no interval of what rests on these cases; None where there can be one."""
        behind = len(np.unique(self.unit[rows]))
        if behind >= MIN_UNITS:
            return None
        unit = "groups" if self.clustered else "cases"
        return too_few(behind, unit)


@dataclass(frozen=True)
class Totals:
    """A Statistic: totals of columns over the drawn cases. `sums`: over each unit's, (units, k)."""

    sums: Floats

    def __call__(self, counts: Floats) -> Floats:
        return np.asarray(self.sums.T @ counts)


def unit_sums(columns: Floats, unit: Ints, units: int) -> Floats:
    """Sums over the cases of each unit: (cases, k) -> (units, k)."""
    return np.stack(
        [np.bincount(unit, weights=column, minlength=units) for column in columns.T], axis=1
    )
