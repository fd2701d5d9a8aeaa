"""How much a difference varies between trainings of one recipe, and what so many trainings show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from warehouse.comparison.resampling import MARGIN


@dataclass(frozen=True)
class SeedSpread:
    """The standard deviation of a difference between seeds of one recipe, and its degrees of
    freedom.
    """

    sd: float
    freedom: int

    @classmethod
    def of(cls, recipes: Iterable[Sequence[float]]) -> SeedSpread | None:
        """Pooled over recipes, each with a difference per seed; None where none has two seeds."""
        repeated = [np.array(values) for values in recipes if len(values) > 1]
        if not repeated:
            return None

        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in repeated)
        freedom = sum(len(values) - 1 for values in repeated)
        return cls(math.sqrt(squares / freedom), freedom)

    def half_width(self, pairs: int) -> float:
        """Of Student's 95 % interval of the mean difference over `pairs` trained pairs."""
        # Not at the top: what only reads stored figures starts fast.
        from scipy import stats

        return float(stats.t.ppf(0.975, self.freedom)) * self.sd / math.sqrt(pairs)


def pairs_that_could_show(sd: float, margin: float = MARGIN) -> int:
    """Trained pairs of one recipe whose Student's 95 % interval is at most `margin` to each side,
    if their difference varies between seeds by `sd`.
    """
    return next(
        pairs
        for pairs in itertools.count(2)  # a single pair has no spread
        if SeedSpread(sd, pairs - 1).half_width(pairs) <= margin
    )
