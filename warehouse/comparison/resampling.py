"""What all comparisons share: seeded resamples of groups or cases, the margin, the three verdicts, and
how much a difference varies between trainings of one recipe.

NumPy alone at the top, so that a command which reads the warehouse can use it without SciPy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.judging.point_metrics import Floats

RESAMPLES = 2000
BLOCK = 100  # resamples drawn at once, so that memory stays small with many cases
SEED = 42
MARGIN = 0.02  # a loss of at most two points still counts as "not inferior"
NOT_INFERIOR = "not inferior"
INFERIOR = "inferior"
CANNOT_CONCLUDE = "cannot conclude"
LOWER_IS_BETTER = ("over_triage",)


def resample_weights(units: int, resamples: int) -> Iterator[Floats]:
    """How often each unit is drawn in seeded bootstrap samples, in blocks (BLOCK, units).

    `resamples` is a multiple of BLOCK.
    """
    # Seeded at each call: all figures on as many units share their resamples.
    generator = np.random.default_rng(SEED)
    for _ in range(resamples // BLOCK):
        drawn_units = generator.integers(0, units, size=(BLOCK, units))
        flat = (drawn_units + units * np.arange(BLOCK)[:, None]).ravel()
        weights = np.bincount(flat, minlength=BLOCK * units).reshape(BLOCK, units)
        yield weights.astype(np.float64)


def verdict_of(low: float, high: float) -> str:
    """The verdict on non-inferiority that a 95 % interval of positive width gives."""
    if low > -MARGIN:
        return NOT_INFERIOR
    return INFERIOR if high < -MARGIN else CANNOT_CONCLUDE


def verdict_on(metric: str, low: float, high: float) -> str:
    """The verdict on the interval of a metric's difference, whichever way the metric is better."""
    return verdict_of(-high, -low) if metric in LOWER_IS_BETTER else verdict_of(low, high)


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
