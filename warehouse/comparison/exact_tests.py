"""The exact test and the score interval of paired proportions, from the counts of discordant cases."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import binomtest, norm

TANGO = "Tango score interval (assumes independent cases)"
_Z = float(norm.ppf(0.975))


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided McNemar p value of b and c discordant cases; 1 where there are none."""
    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def tango_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """95 % score interval of (b - c) / n, a difference of paired proportions.

    Holds with b = c = 0 too.

    Tango, Statistics in Medicine 17 (1998) 891-908: the differences d with
    |b - c - n d| <= z sqrt(n (2 q + d (1 - d))), where q is the maximum likelihood estimate of
    P(right at 8 bits only) under d.
    """
    point = (b - c) / n
    # At -1 and 1 themselves the variance is 0.
    edge = 1 - 1e-9

    def score(d: float) -> float:
        linear = (2 * n - b + c) * d - b - c
        constant = -c * d * (1 - d)
        # The larger root of 2 n q^2 + linear q + constant; rounding can leave less than 0 under it.
        q = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
        return (b - c - n * d) / math.sqrt(max(n * (2 * q + d * (1 - d)), 1e-300))

    # Where even the edge is within z there is no root, and the interval ends at -1 or 1.
    low = -1.0 if score(-edge) < _Z else brentq(lambda d: score(d) - _Z, -edge, max(point, -edge))
    high = 1.0 if score(edge) > -_Z else brentq(lambda d: score(d) + _Z, min(point, edge), edge)
    return float(low), float(high)
