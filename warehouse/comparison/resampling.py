"""What all comparisons share: seeded resamples of groups or cases, the
margin, and the three verdicts.

NumPy alone, so that a command which reads the warehouse can use it without SciPy.
"""

from __future__ import annotations

from collections.abc import Iterator

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
