"""How well the probability of a class ranks its cases before the others: AUROC, average precision.

Both equal those of scikit-learn, with the weights of each resample as `sample_weight`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.judging.point_metrics import Floats, Ints, ratio

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RANKING_METRICS = ("auroc", "average_precision")


@dataclass(frozen=True)
class Ranking:
    """A Statistic: AUROC and average precision.

    A level is a score of at least one positive case; levels fall. Each matrix, shape (levels,
    units), counts cases between a level and the next higher one, the lower level included.
    `tied`: negatives whose score is the level; `negatives`: all of them, shape (units,).
    """

    positive: csr_array
    negative: csr_array
    tied: csr_array
    negatives: Floats

    @classmethod
    def of(cls, scores: Floats, is_positive: Ints, unit: Ints, units: int) -> Ranking:
        """All arguments but the last are of shape (cases,)."""
        truth = is_positive.astype(bool)
        levels = np.unique(scores[truth])[::-1]
        level = np.searchsorted(-levels, -scores, side="left")

        def counted(mask: NDArray[np.bool_]) -> csr_array:
            return _counts(level[mask], unit[mask], (len(levels), units))

        reached = ~truth & (level < len(levels))
        tied = reached.copy()
        tied[reached] = levels[level[reached]] == scores[reached]
        negatives = np.bincount(unit[~truth], minlength=units).astype(np.float64)

        return cls(counted(truth), counted(reached), counted(tied), negatives)

    def __call__(self, counts: Floats) -> Floats:
        """Shape (2, resamples), NaN for a resample without positives or without negatives.

        Average precision is the step function of the precision over the recall, without
        interpolation.
        """
        at_level = self.positive @ counts
        caught = np.cumsum(at_level, axis=0)
        alarms = np.cumsum(self.negative @ counts, axis=0)
        positives = caught[-1]
        negatives = self.negatives @ counts

        precision = caught / np.maximum(caught + alarms, 1.0)
        average = ratio(np.einsum("lr,lr->r", at_level, precision), positives)
        # After the average precision, which counts ties in full; in the area each is one half.
        if self.tied.nnz:
            alarms -= (self.tied @ counts) / 2

        above = ratio(np.einsum("lr,lr->r", at_level, alarms), positives * negatives)
        area = 1 - above
        return np.stack([area, np.where(negatives > 0, average, np.nan)])


def _counts(level: Ints, unit: Ints, shape: tuple[int, int]) -> csr_array:
    from scipy.sparse import coo_array

    ones = np.ones(len(level))
    return coo_array((ones, (level, unit)), shape=shape).tocsr()
