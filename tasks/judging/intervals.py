"""Interval estimates: exact for proportions, bootstrap for everything else, clustered by group where there are groups.

Cases of one condition resemble each other, so an interval that treats them as independent is too narrow. The bootstrap
here resamples whole groups. It works on sums: a statistic is a function of totals over cases (confusion counts, costs,
bin counts), so that thousands of resamples are one matrix product instead of a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Groups = Sequence[str | None]

MIN_UNITS = 10  # fewer groups (or cases) than this, and a percentile bootstrap is too narrow to be shown as an interval
MAX_UNDEFINED = 0.05  # largest share of resamples in which the statistic may be undefined (0/0)
BLOCK = 4_000_000  # multinomial counts held in memory at a time


class Interval(NamedTuple):
    """An interval and the name of the method that gave it."""

    low: float
    high: float
    method: str


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided exact interval of a proportion with k successes among n cases (Clopper and Pearson, 1934).

    Raises ValueError unless 0 <= k <= n, n >= 1 and 0 < level < 1.
    """
    if not (0 <= k <= n and n >= 1 and 0 < level < 1):
        raise ValueError(
            f"clopper_pearson needs 0 <= k <= n, n >= 1 and 0 < level < 1, got k={k}, n={n}, level={level}"
        )
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def wider(a: Interval | None, b: Interval | None) -> Interval | None:
    """The wider of two intervals, `a` if they are equally wide; a missing one gives way to the other."""
    if a is None or b is None:
        return a or b
    return b if b.high - b.low > a.high - a.low else a


def bounds(exact: Interval | None, clustered: Interval | None) -> dict[str, float | None]:
    """Both intervals as columns; None for the ends of one that is missing."""
    ends = {"exact": exact, "clustered": clustered}
    return {
        f"{name}_{end}": getattr(i, end) if i else None
        for name, i in ends.items()
        for end in ("low", "high")
    }


def group_codes(groups: Groups | None, cases: int) -> Ints | None:
    """Integer code of each case's group, shape (cases,); None when no case has a group.

    A case without a group among cases with groups is a group of its own.
    """
    if groups is None or all(g is None for g in groups):
        return None
    if len(groups) != cases:
        raise ValueError(f"{len(groups)} groups for {cases} cases")
    known = {name: code for code, name in enumerate(sorted({g for g in groups if g is not None}))}
    codes = [known[g] if g is not None else len(known) + i for i, g in enumerate(groups)]
    return np.unique(np.asarray(codes, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def resample_totals(
    contributions: ArrayLike,
    *,
    groups: Groups | None,
    strata: ArrayLike | None = None,
    seed: int,
    resamples: int = 2000,
) -> Floats:
    """Bootstrap totals of per-case contributions, shape (cases, k) -> (resamples, k).

    With groups, whole groups are drawn with replacement. Without, cases are drawn within each stratum (within the true
    class, say), which assumes independent cases. Units with equal contributions are interchangeable: drawing how often
    each distinct unit occurs is the same distribution as drawing indices, it is faster, and it makes the result
    independent of the order of cases and of the names of groups.
    """
    values = np.asarray(contributions, dtype=np.float64)
    rng = np.random.default_rng(seed)
    codes = group_codes(groups, len(values))
    if codes is not None:
        sums = np.zeros((int(codes.max()) + 1, values.shape[1]))
        np.add.at(sums, codes, values)
        return _draw(sums, rng, resamples)
    layers = np.zeros(len(values), dtype=np.int64) if strata is None else np.asarray(strata)
    totals = np.zeros((resamples, values.shape[1]))
    for layer in np.unique(layers):
        totals += _draw(values[layers == layer], rng, resamples)
    return totals


def _draw(units: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Totals over as many units as there are, drawn with replacement: (units, k) -> (resamples, k)."""
    distinct, counts = np.unique(units, axis=0, return_counts=True)
    step = max(1, BLOCK // len(distinct))
    blocks = [
        rng.multinomial(len(units), counts / len(units), size=min(step, resamples - done)).astype(
            np.float64
        )
        @ distinct
        for done in range(0, resamples, step)
    ]
    return np.concatenate(blocks)


def percentile_interval(resampled: ArrayLike, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of resampled values; None if more than MAX_UNDEFINED of them are NaN."""
    values = np.asarray(resampled, dtype=np.float64)
    defined = values[~np.isnan(values)]
    if len(values) == 0 or len(defined) < (1 - MAX_UNDEFINED) * len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def clustered_bootstrap(
    statistic: Callable[[Floats], Any],
    *contributions: ArrayLike,
    groups: Groups | None,
    strata: ArrayLike | None = None,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a function of totals.

    contributions: per-case arrays of shape (cases,) or (cases, k); they are stacked side by side. `statistic` takes
    their totals, shape (resamples, all columns), and returns shape (resamples,), NaN where it is undefined. Paired
    differences need nothing more: give both models' contributions. Returns None when there are fewer than MIN_UNITS
    groups (without groups: cases in the smallest stratum) or when the statistic is undefined too often: such an
    interval would look surer than it is.
    """
    columns = [np.asarray(c, dtype=np.float64) for c in contributions]
    stacked = np.concatenate([c[:, None] if c.ndim == 1 else c for c in columns], axis=1)
    if smallest_unit_count(len(stacked), groups, strata) < MIN_UNITS:
        return None
    totals = resample_totals(stacked, groups=groups, strata=strata, seed=seed, resamples=resamples)
    return percentile_interval(statistic(totals), level)


def smallest_unit_count(cases: int, groups: Groups | None, strata: ArrayLike | None = None) -> int:
    """Number of units that are drawn: groups, or else the cases of the smallest stratum."""
    codes = group_codes(groups, cases)
    if codes is not None:
        return len(np.unique(codes))
    if strata is None or cases == 0:
        return cases
    return int(np.unique(np.asarray(strata), return_counts=True)[1].min())
