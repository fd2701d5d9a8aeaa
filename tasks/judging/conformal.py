"""Conformal sets: the labels that cannot be ruled out for a case, with a guaranteed ED miss rate.

A case whose set is not exactly one label is an abstention: the model does not decide it.

Class-conditional (Mondrian) split conformal prediction. Of n calibration cases of a class and a new
one, exchangeable, the new one's probability of its class is below the k-th smallest of the n with
probability at most k / (n + 1); so k = floor(miss rate x (n + 1)) keeps the miss rate, on average
over calibration sets (Vovk, 2012). Cases of another source are not exchangeable, and nothing is
guaranteed for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.judging.inputs import label_codes, label_probabilities
from tasks.judging.intervals import Groups
from tasks.judging.metrics import Metric, joined_notes, share_metric
from tasks.spec import LABELS

EXTERNAL = "no guarantee here: the cases come from elsewhere than the calibration cases"
MOVED = "no guarantee here: the thresholds were chosen for the adapter at its own precision"


def conformal_threshold(scores: ArrayLike, miss_rate: float) -> float:
    """The k-th smallest probability that calibration cases of a class have of it.

    k = floor(miss_rate (n + 1)); a new case of the class falls below with probability at most
    k / (n + 1). 0, which rules nothing out, where k is 0.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    k = _allowed_misses(len(values), miss_rate)
    return float(values[k - 1]) if k >= 1 else 0.0


def _allowed_misses(cases: int, miss_rate: float) -> int:
    # The small term makes up for products such as 0.05 x 20, which may fall just below 1.
    return math.floor(miss_rate * (cases + 1) + 1e-9)


def conformal_sets(p: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Whether each label's probability reaches its threshold, shape (cases, 3)."""
    return np.asarray(label_probabilities(p) >= np.asarray(thresholds))


def judge_conformal(
    calibration: tuple[ArrayLike, Sequence[str]],
    judged_set: tuple[ArrayLike, Sequence[str]],
    miss_rate: float,
    groups: Groups | None = None,
    seed: int = 0,
    caveat: str | None = None,
) -> dict[str, float | int | str | None]:
    """Thresholds from the calibration cases, and how their sets do on the judged cases: columns of
    the table `conformal`, None where there is nothing to count.

    Of either set the label probabilities, shape (cases, 3), and the labels; `groups`: of the judged
    cases. Intervals are 95 %. `caveat`: why the miss rate is not guaranteed, EXTERNAL or MOVED.
    """
    calibration_p = label_probabilities(calibration[0])
    calibration_truth = label_codes(calibration[1])
    own_probabilities = [calibration_p[calibration_truth == i, i] for i in range(len(LABELS))]
    thresholds = [conformal_threshold(of_class, miss_rate) for of_class in own_probabilities]

    truth = label_codes(judged_set[1])
    sets = conformal_sets(judged_set[0], thresholds)
    set_sizes = sets.sum(axis=1)
    is_decided = set_sizes == 1
    is_missed = ~sets[np.arange(len(truth)), truth]
    is_ed = truth == 0
    ed_cases = int(is_ed.sum())

    def share(hits: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Metric:
        of_rows = None if groups is None else [groups[row] for row in np.flatnonzero(rows).tolist()]
        return share_metric("share", hits[rows], of_rows, seed)

    miss = share(is_missed, is_ed)
    # A case whose set has one label is decided wrongly where the true label is missing from it.
    error = share(is_missed, is_decided)
    abstain = share(~is_decided, np.ones_like(is_decided))
    too_few = [
        f"{len(p)} calibration cases of {label} are too few to rule it out at {miss_rate:g}"
        for label, p in zip(LABELS, own_probabilities, strict=True)
        if _allowed_misses(len(p), miss_rate) < 1
    ]
    no_ed = None if ed_cases else "not available: no ED case in this set, so no miss rate"

    return {
        "miss_rate": miss_rate,
        "threshold_ed": thresholds[0],
        "threshold_gp": thresholds[1],
        "threshold_home": thresholds[2],
        "calibration_ed": len(own_probabilities[0]),
        "ed_cases": ed_cases,
        "ed_missed": int(is_missed[is_ed].sum()) if ed_cases else None,
        "ed_miss_rate": miss.value,
        "miss_low": miss.low,
        "miss_high": miss.high,
        "miss_method": miss.method if ed_cases else None,
        "abstain_rate": float((~is_decided).mean()),
        "abstain_low": abstain.low,
        "abstain_high": abstain.high,
        "mean_set_size": float(set_sizes.mean()),
        "error_decided": error.value,
        "error_low": error.low,
        "error_high": error.high,
        "note": joined_notes(caveat, *too_few, no_ed),
    }
