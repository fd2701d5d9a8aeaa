from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from tasks.judging import decision_rules as module
from tasks.judging.decision_rules import conformal_sets, conformal_threshold
from tasks.judging.intervals import CLUSTERED, EXACT, clopper_pearson


def judge_conformal(*args):
    """The columns of the table `conformal`, as attributes."""
    return SimpleNamespace(**module.judge_conformal(*args))


def draw(rng, n):
    """Labels and probabilities of an imperfect model, all three labels equally often."""
    truth = rng.integers(0, 3, n)
    p = softmax(rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[truth], axis=1)
    return truth, p, [("ED", "GP", "HOME")[t] for t in truth]


@pytest.mark.parametrize(("n", "miss_rate"), [(19, 0.05), (30, 0.1), (57, 0.05)])
def test_the_miss_rate_is_guaranteed_over_calibration_sets_and_is_not_wasted(n, miss_rate):
    """At n = 19 and 0.05 the rate is exactly 1/20; one rank further, as the target rule goes, it would be 2/20."""
    rng = np.random.default_rng(n)
    thresholds = np.array([conformal_threshold(row, miss_rate) for row in rng.random((4000, n))])
    missed = (rng.random(4000) < thresholds).mean()
    expected = np.floor(miss_rate * (n + 1) + 1e-9) / (n + 1)
    assert expected <= miss_rate
    assert missed == pytest.approx(expected, abs=3.5 * np.sqrt(miss_rate / 4000))


def test_too_few_calibration_cases_rule_nothing_out_and_without_an_emergency_there_is_no_miss_rate():
    _, p, labels = draw(np.random.default_rng(0), 90)
    calm = [i for i, label in enumerate(labels) if label != "ED"]
    without_ed = (p[calm], [labels[i] for i in calm])
    few = judge_conformal(without_ed, (p, labels), 0.05)
    assert few.threshold_ed == 0 and few.ed_missed == 0 and "0 calibration cases of ED" in few.note
    assert conformal_threshold(np.ones(18), 0.05) == 0 and conformal_threshold(np.ones(19), 0.05) == 1
    no_emergency = judge_conformal((p, labels), without_ed, 0.05)
    assert no_emergency.ed_miss_rate is no_emergency.miss_low is no_emergency.miss_method is None
    assert "no ED case" in no_emergency.note


def test_sets_abstentions_and_misses_are_what_a_loop_counts():
    rng = np.random.default_rng(1)
    truth, p, labels = draw(rng, 300)
    _, q, other_labels = draw(rng, 400)
    conformal = judge_conformal((q, other_labels), (p, labels), 0.1)
    limits = (conformal.threshold_ed, conformal.threshold_gp, conformal.threshold_home)
    sets = [{k for k in range(3) if row[k] >= limits[k]} for row in p]
    assert conformal.ed_missed == sum(t == 0 and 0 not in s for t, s in zip(truth, sets, strict=True))
    assert conformal.abstain_rate == pytest.approx(np.mean([len(s) != 1 for s in sets]))
    decided = [t in s for t, s in zip(truth, sets, strict=True) if len(s) == 1]
    assert conformal.error_decided == pytest.approx(1 - np.mean(decided))
    assert (conformal_sets(p, limits).sum(axis=1) == [len(s) for s in sets]).all()


def test_each_share_has_the_wider_of_the_exact_and_the_clustered_interval():
    rng = np.random.default_rng(3)
    truth, p, labels = draw(rng, 300)
    _, q, other_labels = draw(rng, 400)
    alone = judge_conformal((q, other_labels), (p, labels), 0.1)
    own_groups = [f"c{i}" for i in range(300)]
    assert (alone.miss_low, alone.miss_high) == clopper_pearson(alone.ed_missed, alone.ed_cases)
    assert alone.miss_method == EXACT and alone.abstain_low < alone.abstain_rate < alone.abstain_high

    # Sixty conditions of five like cases each: all of a condition's decisions stand or fall together.
    first = np.repeat(np.arange(0, 300, 5), 5)
    like = judge_conformal(
        (q, other_labels), (p[first], [labels[i] for i in first]), 0.1, [own_groups[i] for i in first], 1
    )
    sets = conformal_sets(p[first], (like.threshold_ed, like.threshold_gp, like.threshold_home))
    for name, hits, low, high in (
        ("miss", ~sets[truth[first] == 0, 0], like.miss_low, like.miss_high),
        ("abstain", sets.sum(axis=1) != 1, like.abstain_low, like.abstain_high),
        ("error", ~sets[np.arange(300), truth[first]][sets.sum(axis=1) == 1], like.error_low, like.error_high),
    ):
        exact = clopper_pearson(int(hits.sum()), len(hits))
        assert high - low > 1.5 * (exact[1] - exact[0]), name

    assert like.miss_method == CLUSTERED
