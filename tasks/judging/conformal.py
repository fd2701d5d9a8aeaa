"""Conformal sets: which labels cannot be ruled out for a case, with a guaranteed ED miss rate, and how often that abstains.

Class-conditional (Mondrian) split conformal prediction. Of n calibration cases of a class and a new one, exchangeable,
the new one's probability of its class is below the k-th smallest of the n with probability at most k / (n + 1); so
k = floor(miss rate x (n + 1)) keeps the miss rate, on average over calibration sets (Vovk, 2012). Cases from elsewhere
are not exchangeable, and nothing is guaranteed there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.judging.inputs import label_codes, label_probabilities
from tasks.judging.intervals import Groups
from tasks.judging.metrics import NO_INTERVAL, Metric
from tasks.judging.shares import share_metric, those
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

EXTERNAL = "no guarantee here: the cases come from elsewhere than the calibration cases"


@dataclass(frozen=True)
class Conformal:
    """Sets of one evaluation set judged; fields as in the table `conformal`. None where there is nothing to count."""

    miss_rate: float
    threshold_ed: float
    threshold_gp: float
    threshold_home: float
    calibration_ed: int
    ed_cases: int
    ed_missed: int | None
    ed_miss_rate: float | None
    miss_low: float | None
    miss_high: float | None
    miss_method: str | None
    abstain_rate: float
    abstain_low: float | None
    abstain_high: float | None
    mean_set_size: float
    error_decided: float | None
    error_low: float | None
    error_high: float | None
    note: str | None


def conformal_threshold(scores: ArrayLike, miss_rate: float) -> float:
    """The k-th smallest of a class's own probabilities on calibration cases, k = floor(miss_rate (n + 1)).

    A new case of the class falls below it with probability at most k / (n + 1). 0 (nothing is ruled out) where k is 0.
    """
    if not 0 < miss_rate < 1:
        raise BadInput(f"The conformal miss rate is {miss_rate}; it must lie between 0 and 1.")
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(values).all():
        raise BadInput("Calibration needs finite probabilities: score the calibration set again.")
    k = math.floor(miss_rate * (len(values) + 1) + 1e-9)
    return float(values[k - 1]) if k >= 1 else 0.0


def conformal_sets(p: ArrayLike, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Whether each label is in each case's set, shape (cases, 3): where its probability reaches its threshold."""
    return np.asarray(label_probabilities(p) >= np.asarray(thresholds))


def judge_conformal(
    calibration_p: ArrayLike, calibration_labels: Sequence[str], p: ArrayLike, labels: Sequence[str], miss_rate: float,
    groups: Groups | None = None, seed: int = 0, external: bool = False,
) -> Conformal:  # fmt: skip
    """Thresholds from the calibration cases, and what their sets do on an evaluation set, with 95 % intervals.

    `groups`: of the evaluation set's cases. `external`: these come from elsewhere than the calibration cases.
    """
    own, truth, known = (
        label_probabilities(calibration_p),
        label_codes(labels),
        label_codes(calibration_labels),
    )
    counts = [int((known == i).sum()) for i in range(len(LABELS))]
    ed, gp, home = (conformal_threshold(own[known == i, i], miss_rate) for i in range(len(LABELS)))
    sets = conformal_sets(p, (ed, gp, home))
    sizes, is_ed = sets.sum(axis=1), truth == 0
    decided = sizes == 1
    wrong = ~sets[np.arange(len(truth)), truth]
    miss, error = (_share(wrong[among], those(groups, among), seed) for among in (is_ed, decided))
    abstain = _share(~decided, groups, seed)
    n_ed = int(is_ed.sum())
    return Conformal(
        miss_rate, ed, gp, home, counts[0], n_ed, int(wrong[is_ed].sum()) if n_ed else None,
        miss.value, miss.low, miss.high, miss.method if n_ed else None,
        float((~decided).mean()), abstain.low, abstain.high, float(sizes.mean()), error.value, error.low, error.high,
        _note(counts, n_ed, miss_rate, external),
    )  # fmt: skip


def _share(hits: NDArray[np.bool_], groups: Groups | None, seed: int) -> Metric:
    """A share with its interval; without a case there is neither."""
    if not len(hits):
        return Metric("share", None, None, None, NO_INTERVAL, 0)
    return share_metric("share", hits, groups, seed)


def _note(counts: list[int], n_ed: int, miss_rate: float, external: bool) -> str | None:
    notes = [EXTERNAL] if external else []
    notes += [
        f"{counts[i]} calibration cases of {label} are too few to rule it out at {miss_rate:g}"
        for i, label in enumerate(LABELS)
        if math.floor(miss_rate * (counts[i] + 1) + 1e-9) < 1
    ]
    if not n_ed:
        notes.append("not available: no ED case in this set, so no miss rate")
    return "; ".join(notes) or None
