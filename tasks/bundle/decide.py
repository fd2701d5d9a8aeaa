"""From the log-likelihoods of the three labels to decisions: the arithmetic of an evaluation, on
the parameters that it has chosen. Nothing is fitted here, and no model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from tasks.bundle.bundle import Bundle
from tasks.bundle.decision import Decision
from tasks.judging.decision_rules import (
    VectorScaling,
    argmax_rule,
    conformal_sets,
    log_probabilities,
    min_cost_rule,
    threshold_rule,
)
from tasks.judging.point_metrics import Floats
from tasks.judging.uncertainty import summarise_passes
from tasks.spec import LABELS, Label


def label_shares(log_likelihoods: ArrayLike) -> Floats:
    """Probabilities of the three labels (cases, 3), float64, from their log-likelihoods."""
    return np.asarray(softmax(np.asarray(log_likelihoods, dtype=np.float64), axis=-1))


def rule_labels(bundle: Bundle, p: Floats) -> Sequence[Label | None]:
    """What the bundle's rule decides on probabilities (cases, 3); None where it is not available."""
    rule = bundle.rule
    if not rule.is_available:
        return [None] * len(p)
    if rule.name == "target_recall" and rule.threshold is not None:
        return threshold_rule(p, rule.threshold)
    if rule.name == "min_cost" and bundle.scaling is not None and rule.costs is not None:
        scaling = VectorScaling(bundle.scaling.temperature, bundle.scaling.biases)
        return min_cost_rule(scaling.apply(log_probabilities(p)), rule.costs)

    return argmax_rule(p)


def decide(
    bundle: Bundle, log_likelihoods: ArrayLike, passes: ArrayLike | None = None
) -> list[Decision]:
    """Decisions on log P(label | prompt) of shape (cases, 3), order LABELS.

    `passes`: label probabilities of dropout passes (passes, cases, 3), for the review flag.
    """
    p = label_shares(log_likelihoods)
    labels = rule_labels(bundle, p)
    sets = conformal_sets(p, bundle.conformal.cutoffs)
    votes: Sequence[dict[str, Any]] = [{}] * len(p)
    if passes is not None:
        votes = summarise_passes(np.asarray(passes), bundle.review.entropy_limit)

    decisions = []
    for i, (ed, gp, home) in enumerate(p.tolist()):
        members = tuple(
            label for label, is_member in zip(LABELS, sets[i], strict=True) if is_member
        )
        decisions.append(
            Decision(
                labels[i],
                (ed, gp, home),
                members,
                review=votes[i].get("review"),
                vote_entropy=votes[i].get("entropy_nats"),
                passes=votes[i].get("passes"),
            )
        )

    return decisions
