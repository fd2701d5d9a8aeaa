import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from tasks.judging.choose_rules import ChosenRule
from tasks.judging.decision_rules import Threshold
from tasks.judging.uncertainty import distinct_passes, passes_are_distinct, summarise_passes, vote_counts
from tasks.judging.uncertainty_rows import _primary_votes
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Scoring


def votes(*counts):
    """Passes of one case with so many votes for ED, GP and HOME, shape (passes, 1, 3)."""
    rows = np.repeat(np.full((3, 3), 0.1) + 0.7 * np.eye(3), counts, axis=0)
    return rows[:, None, :]


def random_passes(seed, passes=20, cases=7, spread=1.0):
    rng = np.random.default_rng(seed)
    return softmax(rng.normal(size=(1, cases, 3)) * 2 + spread * rng.normal(size=(passes, cases, 3)), axis=-1)


@pytest.mark.parametrize(("passes", "dissenting"), [(50, 5), (100, 9)])
def test_the_review_flag_follows_the_published_table(passes, dissenting):
    assert summarise_passes(votes(passes - dissenting, dissenting, 0))[0].review
    assert not summarise_passes(votes(passes - dissenting + 1, dissenting - 1, 0))[0].review


def test_the_review_threshold_is_the_callers():
    p = votes(45, 5, 0)
    assert summarise_passes(p, 0.3)[0].review and not summarise_passes(p, 0.4)[0].review


def test_an_even_vote_of_three_has_the_largest_entropy_and_unanimity_none():
    even = summarise_passes(votes(10, 10, 10))[0]
    sure = summarise_passes(votes(0, 30, 0))[0]
    assert even.entropy_nats == pytest.approx(math.log(3)) and even.review
    assert (sure.entropy_nats, sure.confidence, sure.confidence_se, sure.review) == (0, 1, 0, False)


def test_confidence_carries_its_binomial_error():
    case = summarise_passes(votes(5, 45, 0))[0]
    assert (case.passes, case.majority, case.confidence) == (50, "GP", 0.9)
    assert case.confidence_se == pytest.approx(0.0424, abs=1e-4)


def test_ties_go_to_the_more_urgent_label():
    assert summarise_passes(votes(0, 10, 10))[0].majority == "GP"
    assert summarise_passes(votes(10, 0, 10))[0].majority == "ED"
    assert (vote_counts([[[0.4, 0.4, 0.2]], [[0.2, 0.4, 0.4]]]) == [[1, 1, 0]]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 6))
def test_every_figure_equals_a_computation_case_by_case(seed, passes, cases):
    p = random_passes(seed, passes, cases)
    summaries = summarise_passes(p)
    assert len(summaries) == cases

    for i, case in enumerate(summaries):
        counts = np.bincount(p[:, i].argmax(axis=1), minlength=3)
        mean = p[:, i].mean(axis=0)
        assert case.majority == LABELS[counts.argmax()] and case.confidence == counts.max() / passes
        assert case.entropy_nats == pytest.approx(entropy(counts), abs=1e-12)
        assert case.mean_probabilities == pytest.approx(mean)
        assert case.predictive_entropy_nats == pytest.approx(entropy(mean))
        expected = np.mean([entropy(one) for one in p[:, i]])
        assert case.mutual_information_nats == pytest.approx(entropy(mean) - expected, abs=1e-9)
        assert 0 <= case.mutual_information_nats <= case.predictive_entropy_nats <= math.log(3) + 1e-9
        assert case.review == (case.entropy_nats > 0.3)


def test_mutual_information_is_disagreement_and_never_negative():
    agree = summarise_passes(np.full((20, 1, 3), [0.5, 0.3, 0.2]))[0]
    disagree = summarise_passes(np.eye(3)[[0, 1, 2] * 10][:, None, :])[0]
    assert 0 <= agree.mutual_information_nats < 1e-12 and agree.predictive_entropy_nats > 1
    assert disagree.mutual_information_nats == pytest.approx(math.log(3))


def test_a_probability_of_zero_has_no_nan():
    case = summarise_passes(np.tile([1.0, 0.0, 0.0], (5, 1, 1)))[0]
    assert case.predictive_entropy_nats == 0 and case.mutual_information_nats == 0


def test_inactive_dropout_and_masks_used_twice_are_found():
    log_p = np.log(random_passes(0))
    assert distinct_passes(log_p) == 20 and passes_are_distinct(log_p)
    off = np.repeat(log_p[:1], 20, axis=0)
    assert distinct_passes(off) == 1 and not passes_are_distinct(off)
    reused = np.concatenate([log_p[:10], log_p[:10]])
    assert distinct_passes(reused) == 10 and not passes_are_distinct(reused)

    with pytest.raises(BadInput, match="NaN or infinity"):
        distinct_passes(log_p * math.inf)


def test_a_sure_models_passes_are_distinct_although_their_probabilities_are_rounded_to_the_same():
    log_p = np.array([[[-0.0, -120.5, -130.25]], [[-0.0, -121.5, -130.5]]], np.float32)
    assert (np.exp(log_p) == np.exp(log_p[:1])).all() and passes_are_distinct(log_p)


def test_one_pass_a_wrong_shape_and_nan_are_refused_in_a_sentence():
    for wrong in (random_passes(0, passes=1), random_passes(0)[0]):
        with pytest.raises(BadInput, match="at least 2 passes, cases, 3 labels"):
            summarise_passes(wrong)
    p = random_passes(0)
    p[3, 2, 1] = math.nan
    with pytest.raises(BadInput, match="NaN or infinity"):
        summarise_passes(p)


def test_votes_are_those_of_the_primary_rule_and_not_of_the_argmax():
    p = np.array([[[0.4, 0.5, 0.1]]] * 3 + [[[0.2, 0.7, 0.1]]])
    rule = ChosenRule("target_recall", threshold=Threshold(0.3, 0, 0, 1, 0.0)).decide(p[0])
    judged = SimpleNamespace(primary=rule, evaluation=SimpleNamespace(scoring=Scoring()))
    (of_case,) = _primary_votes(judged, p)
    assert (of_case.decision_majority, of_case.decision_confidence) == ("ED", 0.75)
