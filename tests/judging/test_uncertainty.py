import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from tasks.judging.decision_rules import ChosenRule, Threshold
from tasks.judging.evaluation_rows import primary_votes
from tasks.judging.intervals import clopper_pearson
from tasks.judging.uncertainty import (
    FLAG,
    MAX_PROBABILITY,
    SINGLE_PASS,
    aurc,
    flag_most_uncertain,
    judge_review,
    passes_are_distinct,
    summarise_passes,
)
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS


def votes(*counts):
    """Passes of one case with so many votes for ED, GP and HOME, shape (passes, 1, 3)."""
    rows = np.repeat(np.full((3, 3), 0.1) + 0.7 * np.eye(3), counts, axis=0)
    return rows[:, None, :]


def summarise(*args):
    """The columns of the table `mc_dropout` of each case, as attributes."""
    return [SimpleNamespace(**columns) for columns in summarise_passes(*args)]


def random_passes(seed, passes=20, cases=7, spread=1.0):
    rng = np.random.default_rng(seed)
    return softmax(rng.normal(size=(1, cases, 3)) * 2 + spread * rng.normal(size=(passes, cases, 3)), axis=-1)


@pytest.mark.parametrize(
    ("counts", "majority", "review"),
    [
        *(((45, 5, 0), "ED", True), ((46, 4, 0), "ED", False), ((91, 9, 0), "ED", True), ((92, 8, 0), "ED", False)),
        *(((0, 30, 0), "GP", False), ((0, 10, 10), "GP", True), ((10, 0, 10), "ED", True)),
    ],
)
def test_the_review_flag_follows_the_published_table_and_ties_go_to_the_more_urgent_label(counts, majority, review):
    case = summarise(votes(*counts))[0]
    assert (case.majority, case.review) == (majority, review)


def test_the_figures_of_votes_by_hand():
    sure, most = (summarise(votes(*counts))[0] for counts in ((0, 30, 0), (5, 45, 0)))
    assert (sure.entropy_nats, sure.confidence, sure.confidence_se) == (0, 1, 0)
    assert (most.passes, most.confidence) == (50, 0.9) and most.confidence_se == pytest.approx(0.0424, abs=1e-4)
    reviewed = [summarise(votes(45, 5, 0), threshold)[0].review for threshold in (0.3, 0.4)]
    assert reviewed == [True, False], "the threshold is the caller's"
    (tied,) = summarise([[[0.4, 0.4, 0.2]], [[0.2, 0.4, 0.4]]])
    assert (tied.majority, tied.confidence) == ("ED", 0.5), "within a pass, too, the more urgent label has the vote"

    agree = summarise(np.full((20, 1, 3), [0.5, 0.3, 0.2]))[0]
    disagree = summarise(np.eye(3)[[0, 1, 2] * 10][:, None, :])[0]
    certain = summarise(np.tile([1.0, 0.0, 0.0], (5, 1, 1)))[0]
    assert 0 <= agree.mutual_information_nats < 1e-12 and agree.predictive_entropy_nats > 1
    assert disagree.mutual_information_nats == pytest.approx(math.log(3))
    assert certain.predictive_entropy_nats == certain.mutual_information_nats == 0, "no NaN"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 6))
def test_every_figure_equals_a_computation_case_by_case(seed, passes, cases):
    p = random_passes(seed, passes, cases)
    summaries = summarise(p)
    assert len(summaries) == cases

    for i, case in enumerate(summaries):
        counts = np.bincount(p[:, i].argmax(axis=1), minlength=3)
        mean = p[:, i].mean(axis=0)
        assert case.majority == LABELS[counts.argmax()] and case.confidence == counts.max() / passes
        assert case.entropy_nats == pytest.approx(entropy(counts), abs=1e-12)
        assert (case.p_ed, case.p_gp, case.p_home) == pytest.approx(mean)
        assert case.predictive_entropy_nats == pytest.approx(entropy(mean))
        expected = np.mean([entropy(one) for one in p[:, i]])
        assert case.mutual_information_nats == pytest.approx(entropy(mean) - expected, abs=1e-9)
        assert 0 <= case.mutual_information_nats <= case.predictive_entropy_nats <= math.log(3) + 1e-9
        assert case.review == (case.entropy_nats > 0.3)


def test_inactive_dropout_and_masks_used_twice_are_found_and_nan_is_refused():
    log_p = np.log(random_passes(0))
    assert passes_are_distinct(log_p)
    assert not passes_are_distinct(np.repeat(log_p[:1], 20, axis=0))
    assert not passes_are_distinct(np.concatenate([log_p[:10], log_p[:10]]))
    sure = np.array([[[-0.0, -120.5, -130.25]], [[-0.0, -121.5, -130.5]]], np.float32)
    assert (np.exp(sure) == np.exp(sure[:1])).all() and passes_are_distinct(sure), "though rounded to the same"
    with pytest.raises(BadInput, match="NaN or infinity"):
        passes_are_distinct(log_p * math.inf)
    p = random_passes(0)
    p[3, 2, 1] = math.nan
    with pytest.raises(BadInput, match="not finite"):
        summarise(p)


def test_votes_are_those_of_the_primary_rule_and_not_of_the_argmax():
    p = np.array([[[0.4, 0.5, 0.1]]] * 3 + [[[0.2, 0.7, 0.1]]])
    rule = ChosenRule("target_recall", threshold=Threshold(0.3, 0, 0, 1, 0.0))
    (of_case,) = primary_votes(rule, p)
    assert (of_case["decision_majority"], of_case["decision_confidence"]) == ("ED", 0.75)


CASES = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_risk_and_coverage_by_hand():
    assert aurc([0.1, 0.9, 0.5, 0.2], [0, 1, 1, 0]) == pytest.approx((1 / 3 + 0.5) / 4)
    wrong = np.arange(50) % 5 == 0
    assert aurc(wrong * 1.0, wrong) < aurc(np.zeros(50), wrong) < aurc(-1.0 * wrong, wrong)
    assert aurc(np.zeros(50), wrong) == pytest.approx(0.2)


@settings(max_examples=10, deadline=None)
@given(CASES, st.integers(0, 2**32 - 1))
def test_ties_count_as_the_mean_over_orders_and_the_order_of_cases_decides_nothing(cases, seed):
    scores = np.array([c[0] for c in cases])
    wrong = np.array([c[1] for c in cases])
    shuffle = np.random.default_rng(seed).permutation(len(cases))
    assert aurc(scores[shuffle], wrong[shuffle]) == pytest.approx(aurc(scores, wrong))
    rng = np.random.default_rng(seed)
    jittered = [aurc(scores + 1e-6 * rng.random(len(cases)), wrong) for _ in range(300)]
    assert aurc(scores, wrong) == pytest.approx(np.mean(jittered), abs=0.06)


@settings(max_examples=40, deadline=None)
@given(CASES, st.floats(0, 1))
def test_a_rival_flags_exactly_the_load_it_is_given_from_the_top(cases, load):
    scores = np.array([c[0] for c in cases])
    flag = flag_most_uncertain(scores, load)
    assert flag.mean() == pytest.approx(load, abs=1e-9)
    assert all(flag[i] >= flag[j] for i in range(len(flag)) for j in range(len(flag)) if scores[i] > scores[j])


def judge_flag(flagged, wrong, missed, groups=None):
    """The row of a flag, on cases of which some are decided wrongly, among these missed emergencies."""
    labels = np.where(missed, "ED", "GP")
    decisions = np.where(wrong, "HOME", labels)
    same = np.full((len(labels), 3), 1 / 3)
    return judge_review(flagged, np.zeros(len(labels)), same, labels.tolist(), decisions.tolist(), groups)[0]


def test_a_flag_is_judged_by_what_it_catches_and_what_it_keeps_and_what_cannot_be_counted_is_none():
    quality = SimpleNamespace(**judge_flag([1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [1, 0, 1, 0, 0]))
    assert (quality.load, quality.error_flagged, quality.missed_ed_flagged, quality.missed_ed) == (0.4, 0.5, 0.5, 2)
    assert quality.error_kept == pytest.approx(2 / 3) and quality.wrong_flagged == pytest.approx(1 / 3)
    assert (quality.wrong_flagged_low, quality.wrong_flagged_high) == clopper_pearson(1, 3)
    assert (quality.missed_ed_flagged_low, quality.missed_ed_flagged_high) == clopper_pearson(1, 2)

    everything = SimpleNamespace(**judge_flag([1, 1], [0, 1], [0, 0]))
    assert everything.error_kept is everything.missed_ed_flagged is everything.missed_ed_flagged_low is None
    assert everything.wrong_flagged == 1 and judge_flag([0, 0], [0, 1], [0, 1])["error_flagged"] is None


def test_cases_that_tie_at_the_cut_count_as_the_mean_over_their_orders():
    """Two of five are flagged: the first, and one of the three that tie."""
    flag = flag_most_uncertain([9, 5, 5, 5, 1], 0.4)
    assert flag.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 0])
    wrong, missed = np.array([1, 1, 0, 0, 1]), np.array([0, 1, 0, 0, 0])
    orders = [judge_flag([place in (0, second) for place in range(5)], wrong, missed) for second in (1, 2, 3)]
    tied = judge_flag(flag, wrong, missed)
    for name in ("load", "wrong_flagged", "missed_ed_flagged", "error_flagged", "error_kept"):
        assert tied[name] == pytest.approx(np.mean([order[name] for order in orders])), name
    assert 0 < tied["missed_ed_flagged_low"] < 1 / 3 < tied["missed_ed_flagged_high"] < 1


@pytest.mark.parametrize(("groups", "clustered"), [(12, True), (9, False)])
def test_what_a_flag_catches_has_the_interval_of_its_groups_where_that_is_wider(groups, clustered):
    flag = np.repeat(np.arange(groups) % 2, 10)
    everything = np.ones(len(flag))
    caught = judge_flag(flag, everything, everything, [f"g{row // 10}" for row in range(len(flag))])
    exact = clopper_pearson(int(flag.sum()), len(flag))
    width = caught["wrong_flagged_high"] - caught["wrong_flagged_low"]
    assert (width > 2 * (exact[1] - exact[0])) == clustered and width >= exact[1] - exact[0]


def outcomes(n=300, seed=0):
    """Labels, decisions, and a single pass that knows nothing of where it errs."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(3, n)
    wrong = rng.random(n) < 0.3
    decided = np.where(wrong, (codes + 2) % 3, codes)
    labels, decisions = ([LABELS[code] for code in side] for side in (codes, decided))
    return labels, decisions, rng.dirichlet([2, 2, 2], n), wrong, rng


def judged(entropy, p, labels, decisions, **options):
    flagged = entropy > 0.3
    return {
        row["score"]: SimpleNamespace(**row) for row in judge_review(flagged, entropy, p, labels, decisions, **options)
    }


def test_a_vote_entropy_that_knows_the_errors_is_better_and_one_that_does_not_is_worse():
    """Rivals are judged at the load of the flag."""
    labels, decisions, p, wrong, rng = outcomes()
    knows = np.clip(np.where(wrong, 0.6, 0.1) + rng.normal(0, 0.1, len(wrong)), 0, 1)
    flags = judged(knows, p, labels, decisions)
    assert flags[MAX_PROBABILITY].verdict == flags[SINGLE_PASS].verdict == "vote_entropy is better"
    assert flags[MAX_PROBABILITY].difference_low > 0
    assert all(flag.load == pytest.approx((knows > 0.3).mean()) for flag in flags.values())
    assert flags[FLAG].aurc == pytest.approx(aurc(knows, wrong))
    assert flags[MAX_PROBABILITY].aurc == pytest.approx(aurc(1 - p.max(axis=1), wrong))

    confident = np.where(wrong[:, None], 0.34, 0.9)  # now the single pass knows, and the votes do not
    q = np.column_stack([confident[:, 0], (1 - confident[:, 0]) / 2, (1 - confident[:, 0]) / 2])
    flags = judged(rng.random(len(wrong)), q, labels, decisions)
    assert flags[MAX_PROBABILITY].verdict == "max_probability is better"


def test_without_both_right_and_wrong_cases_or_with_few_conditions_nothing_is_claimed():
    labels = ["GP"] * 40
    for decisions in (labels, ["ED"] * 40):
        flags = judged(np.linspace(0, 1, 40), np.tile([0.2, 0.5, 0.3], (40, 1)), labels, decisions)
        assert flags[MAX_PROBABILITY].verdict == "cannot tell" and "decided wrongly" in flags[MAX_PROBABILITY].note
        assert flags[FLAG].missed_ed_flagged is None

    labels, decisions, p, _, rng = outcomes(60)
    flags = judged(rng.random(60), p, labels, decisions, groups=[f"g{i % 9}" for i in range(60)])
    assert flags[MAX_PROBABILITY].verdict == "cannot tell" and "fewer than 10" in flags[MAX_PROBABILITY].note
