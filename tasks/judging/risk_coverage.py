"""Is a review flag worth its load? Risk-coverage curves, and what a flag catches when it may flag so many cases.

Scores such as vote entropy tie in many cases; ties count with their average over all orders, so that the order of cases
in a file decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.point_metrics import Floats


@dataclass(frozen=True)
class FlagQuality:
    """A review flag judged. None where there is nothing to count (no kept case, no missed emergency)."""

    load: float  # share of cases flagged
    error_kept: float | None  # error rate among the cases that are not flagged
    error_flagged: float | None
    missed_ed_flagged: float | None  # share of missed emergencies that the flag catches
    missed_ed: int


def risk_coverage(uncertainty: ArrayLike, wrong: ArrayLike) -> tuple[Floats, Floats]:
    """Coverage k/n and error rate among the k least uncertain cases, k = 1..n, each of shape (cases,)."""
    scores, errors = np.asarray(uncertainty, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    if len(scores) == 0 or scores.shape != errors.shape or not np.isfinite(scores).all():
        raise ValueError(
            "risk_coverage needs one finite uncertainty and one error flag for each of at least one case"
        )
    codes = np.unique(scores, return_inverse=True)[1]
    mean_error = np.bincount(codes, weights=errors) / np.bincount(codes)
    kept = np.arange(1, len(scores) + 1)
    return kept / len(scores), np.cumsum(mean_error[np.sort(codes)]) / kept


def aurc(uncertainty: ArrayLike, wrong: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean error rate over all coverages; lower is better (Geifman et al., 2019)."""
    return float(risk_coverage(uncertainty, wrong)[1].mean())


def flag_most_uncertain(uncertainty: ArrayLike, load: float) -> Floats:
    """Weights in [0, 1], shape (cases,), that flag the share `load` of most uncertain cases; ties share what is left.

    For the comparison of rivals at the load of another flag: pass the result to `judge_flag`.
    """
    scores = np.asarray(uncertainty, dtype=np.float64)
    above = (scores[None, :] > scores[:, None]).sum(axis=1)
    tied = (scores[None, :] == scores[:, None]).sum(axis=1)
    return np.asarray(np.clip((load * len(scores) - above) / tied, 0.0, 1.0))


def judge_flag(flagged: ArrayLike, wrong: ArrayLike, missed_ed: ArrayLike) -> FlagQuality:
    """Judge a flag (booleans or weights) by the errors and the missed emergencies (ED cases decided otherwise)."""
    flag, errors, missed = (np.asarray(a, dtype=np.float64) for a in (flagged, wrong, missed_ed))
    if len(flag) == 0 or not flag.shape == errors.shape == missed.shape:
        raise ValueError(
            "judge_flag needs a flag, an error and a missed-emergency mark for each of at least one case"
        )
    return FlagQuality(
        load=float(flag.mean()),
        error_kept=_share((1 - flag) * errors, 1 - flag),
        error_flagged=_share(flag * errors, flag),
        missed_ed_flagged=_share(flag * missed, missed),
        missed_ed=int(missed.sum()),
    )


def _share(part: Floats, whole: Floats) -> float | None:
    return float(part.sum() / whole.sum()) if whole.sum() > 1e-9 else None
