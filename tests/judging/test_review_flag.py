import numpy as np
import pytest

from tasks.judging.review_flag import FLAG, MAX_PROBABILITY, SINGLE_PASS, judge_review
from tasks.judging.risk_coverage import aurc


def cases(n=300, seed=0):
    """Labels, decisions, and a single pass that knows nothing of where it errs."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(["ED", "GP", "HOME"], n)
    wrong = rng.random(n) < 0.3
    decisions = np.where(wrong, np.roll(["ED", "GP", "HOME"], 1)[np.searchsorted(["ED", "GP", "HOME"], labels)], labels)
    p = rng.dirichlet([2, 2, 2], n)
    return labels.tolist(), decisions.tolist(), p, wrong, rng


def judged(entropy, p, labels, decisions, **options):
    flagged = entropy > 0.3
    return {j.score: j for j in judge_review(flagged, entropy, p, labels, decisions, **options)}


def test_a_vote_entropy_that_knows_the_errors_is_better_and_one_that_does_not_is_worse():
    labels, decisions, p, wrong, rng = cases()
    knows = np.clip(np.where(wrong, 0.6, 0.1) + rng.normal(0, 0.1, len(wrong)), 0, 1)
    flags = judged(knows, p, labels, decisions)
    assert flags[MAX_PROBABILITY].verdict == flags[SINGLE_PASS].verdict == "vote_entropy is better"
    assert flags[MAX_PROBABILITY].difference_low > 0
    confident = np.where(wrong[:, None], 0.34, 0.9)  # now the single pass knows, and the votes do not
    q = np.column_stack([confident[:, 0], (1 - confident[:, 0]) / 2, (1 - confident[:, 0]) / 2])
    flags = judged(rng.random(len(wrong)), q, labels, decisions)
    assert flags[MAX_PROBABILITY].verdict == "max_probability is better"


def test_scores_without_information_give_no_verdict():
    labels, decisions, p, _, rng = cases(seed=3)
    flags = judged(rng.random(len(labels)), p, labels, decisions)
    assert {flags[name].verdict for name in (MAX_PROBABILITY, SINGLE_PASS)} == {"cannot tell"}


def test_rivals_are_judged_at_the_load_of_the_flag_and_areas_are_those_of_the_curve():
    labels, decisions, p, wrong, rng = cases(seed=1)
    entropy = rng.random(len(labels))
    flags = judged(entropy, p, labels, decisions)
    assert all(j.quality.load == pytest.approx((entropy > 0.3).mean()) for j in flags.values())
    assert flags[FLAG].aurc == pytest.approx(aurc(entropy, wrong))
    assert flags[MAX_PROBABILITY].aurc == pytest.approx(aurc(1 - p.max(axis=1), wrong))


@pytest.mark.parametrize("decide", [lambda labels: labels, lambda labels: ["ED"] * len(labels)])
def test_without_both_right_and_wrong_cases_nothing_is_claimed(decide):
    labels = ["GP"] * 40
    p = np.tile([0.2, 0.5, 0.3], (40, 1))
    flags = judged(np.linspace(0, 1, 40), p, labels, decide(labels))
    assert flags[MAX_PROBABILITY].verdict == "cannot tell" and "decided wrongly" in flags[MAX_PROBABILITY].note
    assert flags[FLAG].quality.missed_ed_flagged is None


def test_few_conditions_give_no_interval():
    labels, decisions, p, _, rng = cases(60)
    flags = judged(rng.random(60), p, labels, decisions, groups=[f"g{i % 9}" for i in range(60)])
    assert flags[MAX_PROBABILITY].verdict == "cannot tell" and "fewer than 10" in flags[MAX_PROBABILITY].note
