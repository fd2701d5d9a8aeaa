"""ED recall at a fixed over-triage, against every threshold tried by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.judging.decision_rules import threshold_rule
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import metric_values
from tasks.judging.recall_at_over_triage import recall_at_over_triage
from tasks.spec import LABELS


def by_hand(p, labels, limit: float) -> float:
    """The best recall among the decisions of the rule at every threshold, by the project's own metrics."""
    best = 0.0
    for threshold in [*p[:, 0], 2.0]:
        values = metric_values(confusion(labels, threshold_rule(p, threshold)).astype(float)[None])
        if values["over_triage"][0] <= limit + 1e-12:
            best = max(best, float(values["ed_recall"][0]))
    return best


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.9]))
def test_it_is_the_best_threshold_of_the_rule_within_the_over_triage(seed, limit):
    rng = np.random.default_rng(seed)
    cases = int(rng.integers(3, 25))
    p = rng.dirichlet([1, 1, 1], cases).round(1) + 1e-3  # ties are common
    p /= p.sum(1, keepdims=True)
    labels = ["ED", *rng.choice(LABELS, cases - 1)]
    assert recall_at_over_triage(p, labels, limit) == pytest.approx(by_hand(p, labels, limit))


def test_home_sent_to_the_gp_counts_and_without_an_emergency_there_is_no_recall():
    p = [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]
    assert recall_at_over_triage(p, ["ED", "HOME", "HOME"], 0.5) == 0.0
    assert recall_at_over_triage(p, ["ED", "GP", "GP"], 0.5) == 1.0
    assert math.isnan(recall_at_over_triage(p, ["GP", "GP", "GP"], 0.5))
