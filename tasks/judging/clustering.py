"""How alike the cases of one group are: the intraclass correlation of a figure, by analysis of
variance.
"""

from __future__ import annotations

import numpy as np

from tasks.judging.point_metrics import Floats

LEAST_WITHIN = 10  # degrees of freedom within groups, below which nothing is estimated


def intraclass_correlation(cases: Floats, sums: Floats, squares: Floats) -> float | None:
    """The ANOVA estimate of the correlation of two cases of one group.

    Each argument is (groups,): a group's cases, the sum of their values, and of the values squared.
    None where there are too few groups with several cases, or where all values are equal. It may be
    negative.

    Donner, International Statistical Review 54 (1986) 67-82, equation 2.1.
    """
    has_cases = cases > 0
    n = cases[has_cases]
    total = sums[has_cases]
    squared = squares[has_cases]
    groups = len(n)
    all_cases = n.sum()
    if groups < 2 or all_cases - groups < LEAST_WITHIN:
        return None

    means = total / n
    between_variance = (n * (means - total.sum() / all_cases) ** 2).sum() / (groups - 1)
    within_variance = (squared - n * means**2).sum() / (all_cases - groups)
    # n0 of the analysis of variance: the size of a group, below the mean where sizes differ.
    usual = (all_cases - (n**2).sum() / all_cases) / (groups - 1)
    scale = between_variance + (usual - 1) * within_variance

    return float((between_variance - within_variance) / scale) if scale > 0 else None


def value_sums(counts: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Arguments of `intraclass_correlation` from counts (groups, kinds) and a value per kind."""
    return (
        np.asarray(counts.sum(-1), dtype=np.float64),
        np.asarray(counts @ values),
        np.asarray(counts @ values**2),
    )
