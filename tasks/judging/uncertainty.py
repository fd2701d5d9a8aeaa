"""Monte Carlo dropout passes per case: votes, entropies, mutual information, review flag.

Entropies are in nats: ln 3 = 1.0986 is the maximum of three labels. Method: Gal and Ghahramani
(2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from tasks.judging.inputs import label_probabilities
from tasks.judging.point_metrics import Floats, Ints
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Label


@dataclass(frozen=True)
class McCase:
    """One case after `passes` dropout passes; fields as in the table `mc_dropout`.

    confidence: share of the majority's votes; confidence_se: its binomial standard error, 0.042 at
    0.9 and 50 passes; entropy_nats: of the vote shares; mean_probabilities: over passes, order
    LABELS; predictive_entropy_nats: H[E p]; mutual_information_nats: H[E p] - E[H p], which
    measures how much the passes disagree.
    """

    passes: int
    majority: Label
    confidence: float
    confidence_se: float
    entropy_nats: float
    mean_probabilities: tuple[float, float, float]
    predictive_entropy_nats: float
    mutual_information_nats: float
    review: bool


def entropy_nats(shares: ArrayLike) -> Floats:
    """-sum p ln p over the last axis, 0 ln 0 = 0."""
    values = np.asarray(shares, dtype=np.float64)
    return np.asarray(entr(values).sum(axis=-1))


def vote_counts(p: ArrayLike) -> Ints:
    """Votes of each label, shape (cases, 3), from passes of shape (passes, cases, 3).

    A tie within a pass votes for the more urgent label.
    """
    votes = _checked_passes(p).argmax(axis=-1)
    counts = [(votes == i).sum(axis=0) for i in range(len(LABELS))]
    return np.stack(counts, axis=-1).astype(np.int64)


def summarise_passes(p: ArrayLike, review_entropy: float = 0.3) -> list[McCase]:
    """One McCase per case from label probabilities of shape (passes, cases, 3).

    review: vote entropy above `review_entropy` nats (0.3: at least 5 dissenting votes of 50, or 9
    of 100). A tie in the votes goes to the more urgent label. Check `passes_are_distinct` first:
    without dropout all passes agree, which says nothing about certainty.
    """
    values = _checked_passes(p)
    passes, cases = values.shape[:2]

    votes = vote_counts(values)
    confidence = votes.max(axis=1) / passes
    vote_entropy = entropy_nats(votes / passes)
    mean = values.mean(axis=0)
    predictive = entropy_nats(mean)
    # Rounding can make the difference -1e-17.
    information = np.maximum(predictive - entropy_nats(values).mean(axis=0), 0.0)

    return [
        McCase(
            passes=passes,
            majority=LABELS[int(votes[i].argmax())],
            confidence=float(confidence[i]),
            confidence_se=float(np.sqrt(confidence[i] * (1 - confidence[i]) / passes)),
            entropy_nats=float(vote_entropy[i]),
            mean_probabilities=(float(mean[i, 0]), float(mean[i, 1]), float(mean[i, 2])),
            predictive_entropy_nats=float(predictive[i]),
            mutual_information_nats=float(information[i]),
            review=bool(vote_entropy[i] > review_entropy),
        )
        for i in range(cases)
    ]


def distinct_passes(log_p: ArrayLike) -> int:
    """Number of different passes among log-probabilities (passes, cases, 3): 1 without dropout.

    Probabilities would not do: a confident model's are rounded to 1 and 0 in every pass. Raises
    BadInput for a value that is not finite.
    """
    values = np.asarray(log_p)
    if not np.isfinite(values).all():
        raise BadInput(
            "Dropout passes hold NaN or infinity: train again with a lower learning rate or scale."
        )
    return len(np.unique(values.reshape(len(values), -1), axis=0))


def passes_are_distinct(log_p: ArrayLike) -> bool:
    """True if no two passes are equal: dropout is on, and no mask is used twice."""
    return distinct_passes(log_p) == len(np.asarray(log_p))


def _checked_passes(p: ArrayLike) -> Floats:
    values = label_probabilities(p)
    if values.ndim != 3 or len(values) < 2:
        raise BadInput(
            f"Dropout passes have shape {values.shape}; "
            "they need (at least 2 passes, cases, 3 labels)."
        )
    return values
