"""ED recall at a fixed over-triage: what a model can catch if only so many may be sent too high."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.inputs import label_codes, label_probabilities


def recall_at_over_triage(p: ArrayLike, labels: Sequence[str], over_triage: float) -> float:
    """The highest ED recall of a threshold on p(ED) whose over-triage is at most `over_triage`.

    `p` of shape (cases, 3). Below the threshold the more probable of GP and HOME is answered, as
    under the rule target_recall. Over-triage is the share of all cases that are sent somewhere more
    urgent than labelled, GP instead of HOME included; where these alone are too many, the recall
    is 0. NaN without an ED case.
    """
    values = label_probabilities(p)
    truth = label_codes(labels)
    emergencies = truth == 0
    if not emergencies.any():
        return float("nan")

    too_high_anyway = 1 + values[:, 1:].argmax(axis=1) < truth
    best_recall = 0.0
    for threshold in np.unique(values[:, 0]):
        sent_to_ed = values[:, 0] >= threshold
        too_high = np.where(sent_to_ed, ~emergencies, too_high_anyway).mean()
        # A mean of whole cases may round to just above the bound.
        if too_high <= over_triage + 1e-12:
            best_recall = max(best_recall, float(sent_to_ed[emergencies].mean()))

    return best_recall
