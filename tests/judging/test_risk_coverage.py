import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.judging.risk_coverage import aurc, flag_most_uncertain, judge_flag, risk_coverage

CASES = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_risk_and_coverage_by_hand():
    coverage, risk = risk_coverage([0.1, 0.9, 0.5, 0.2], [0, 1, 1, 0])
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1] and risk == pytest.approx([0, 0, 1 / 3, 0.5])
    assert aurc([0.1, 0.9, 0.5, 0.2], [0, 1, 1, 0]) == pytest.approx((1 / 3 + 0.5) / 4)


def test_a_better_score_has_a_smaller_area_and_a_constant_one_the_error_rate():
    wrong = np.arange(50) % 5 == 0
    assert aurc(wrong * 1.0, wrong) < aurc(np.zeros(50), wrong) < aurc(-1.0 * wrong, wrong)
    assert aurc(np.zeros(50), wrong) == pytest.approx(0.2)


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(0, 2**32 - 1))
def test_ties_count_as_the_mean_over_orders_and_the_order_of_cases_decides_nothing(cases, seed):
    scores = np.array([c[0] for c in cases])
    wrong = np.array([c[1] for c in cases])
    shuffle = np.random.default_rng(seed).permutation(len(cases))
    assert aurc(scores[shuffle], wrong[shuffle]) == pytest.approx(aurc(scores, wrong))
    rng = np.random.default_rng(seed)
    jittered = [aurc(scores + 1e-6 * rng.random(len(cases)), wrong) for _ in range(400)]
    assert aurc(scores, wrong) == pytest.approx(np.mean(jittered), abs=0.06)


@settings(max_examples=100, deadline=None)
@given(CASES, st.floats(0, 1))
def test_a_rival_flags_exactly_the_load_it_is_given_from_the_top(cases, load):
    scores = np.array([c[0] for c in cases])
    flag = flag_most_uncertain(scores, load)
    assert flag.mean() == pytest.approx(load, abs=1e-9)
    assert all(flag[i] >= flag[j] for i in range(len(flag)) for j in range(len(flag)) if scores[i] > scores[j])


def test_a_flag_is_judged_by_what_it_catches_and_what_it_keeps():
    flagged = [1, 1, 0, 0, 0]
    wrong = [1, 0, 1, 1, 0]
    missed = [1, 0, 1, 0, 0]
    quality = judge_flag(flagged, wrong, missed)
    assert (quality.load, quality.error_flagged, quality.missed_ed_flagged, quality.missed_ed) == (0.4, 0.5, 0.5, 2)
    assert quality.error_kept == pytest.approx(2 / 3)


def test_what_cannot_be_counted_is_none_and_never_zero():
    everything = judge_flag([1, 1], [0, 1], [0, 0])
    assert everything.error_kept is None and everything.missed_ed_flagged is None
    assert judge_flag([0, 0], [0, 1], [0, 1]).error_flagged is None
    with pytest.raises(ValueError, match="at least one case"):
        judge_flag([], [], [])
    with pytest.raises(ValueError, match="at least one case"):
        aurc([], [])
