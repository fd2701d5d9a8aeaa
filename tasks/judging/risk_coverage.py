"""Risk-coverage curves, and what a review flag catches for the share of cases that it flags.

Scores such as vote entropy tie in many cases; ties count with their average over all orders, so
that the order of cases in a file decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.point_metrics import Floats


@dataclass(frozen=True)
class FlagQuality:
    """How well a review flag works. None where there is nothing to count.

    `load`: share of cases flagged; `error_kept` and `error_flagged`: error rates among the cases
    that are not flagged and those that are; `missed_ed`: emergencies decided otherwise, of which
    the flag catches the share `missed_ed_flagged`.
    """

    load: float
    error_kept: float | None
    error_flagged: float | None
    missed_ed_flagged: float | None
    missed_ed: int


def risk_coverage(uncertainty: ArrayLike, wrong: ArrayLike) -> tuple[Floats, Floats]:
    """Coverage k/n, and error rate among the k least uncertain cases, for k = 1..n.

    Both have shape (cases,). Raises ValueError unless there is one finite uncertainty and one error
    mark per case.
    """
    scores = np.asarray(uncertainty, dtype=np.float64)
    errors = np.asarray(wrong, dtype=np.float64)
    if len(scores) == 0 or scores.shape != errors.shape or not np.isfinite(scores).all():
        raise ValueError(
            "risk_coverage needs one finite uncertainty and one error flag "
            "for each of at least one case"
        )

    # Tied cases share the mean error of their tie.
    codes = np.unique(scores, return_inverse=True)[1]
    mean_error = np.bincount(codes, weights=errors) / np.bincount(codes)
    covered = np.arange(1, len(scores) + 1)
    return covered / len(scores), np.cumsum(mean_error[np.sort(codes)]) / covered


def aurc(uncertainty: ArrayLike, wrong: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean error rate over coverages (Geifman et al., 2019).

    Lower is better.
    """
    return float(risk_coverage(uncertainty, wrong)[1].mean())


def flag_most_uncertain(uncertainty: ArrayLike, load: float) -> Floats:
    """Weights in [0, 1], shape (cases,), that flag the share `load` of most uncertain cases.

    Tied cases share the remaining load equally. Pass the result to `judge_flag` to compare scores
    at the load of another flag.
    """
    scores = np.asarray(uncertainty, dtype=np.float64)
    above = (scores[None, :] > scores[:, None]).sum(axis=1)
    tied = (scores[None, :] == scores[:, None]).sum(axis=1)
    return np.asarray(np.clip((load * len(scores) - above) / tied, 0.0, 1.0))


def judge_flag(flagged: ArrayLike, wrong: ArrayLike, missed_ed: ArrayLike) -> FlagQuality:
    """Judge a flag by the errors and the missed emergencies (ED cases decided otherwise).

    All arguments have shape (cases,); `flagged` holds booleans or weights in [0, 1].
    """
    flag = np.asarray(flagged, dtype=np.float64)
    errors = np.asarray(wrong, dtype=np.float64)
    missed = np.asarray(missed_ed, dtype=np.float64)
    if len(flag) == 0 or not flag.shape == errors.shape == missed.shape:
        raise ValueError(
            "judge_flag needs a flag, an error and a missed-emergency mark "
            "for each of at least one case"
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
