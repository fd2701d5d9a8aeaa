"""Statistics of pairs against scikit-learn, SciPy, hand-worked values and independent numerical solutions."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, f1_score, fbeta_score, recall_score

from warehouse.comparison.paired import METRICS, PairedDecisions, compare, compared_metrics, mcnemar, tango_interval

COST = np.array([[1, 100, 100], [2, 1, 10], [2, 3, 1]], dtype=float)


def decided(label, four, eight, unit=None):
    label, four, eight = (np.asarray(x, dtype=np.int64) for x in (label, four, eight))
    units = np.arange(len(label)) if unit is None else np.asarray(unit)
    return PairedDecisions(label, four, eight, units, unit is not None)


def noisy(n, seed, right=0.8):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    return label, *(np.where(rng.random(n) < right, label, rng.integers(0, 3, n)) for _ in range(2))


def by_name(pair, cost=COST):
    return {comparison.metric: comparison for comparison in compare(pair, cost)}


@pytest.mark.parametrize("seed", range(20))
def test_figures_equal_scikit_learn(seed):
    label, four, eight = noisy(40 + seed, seed)
    comparisons = by_name(decided(label, four, eight))
    for choice, side in ((four, "value_4bit"), (eight, "value_8bit")):
        expected = {
            "accuracy": accuracy_score(label, choice),
            "ed_recall": recall_score(label, choice, labels=[0], average="macro"),
            "ed_f2": fbeta_score(label, choice, beta=2, labels=[0], average="macro"),
            "macro_f1": f1_score(label, choice, average="macro"),
            "expected_cost": COST[label, choice].mean(),
        }
        assert {name: getattr(comparisons[name], side) for name in METRICS} == pytest.approx(expected)

    for name in METRICS:
        assert comparisons[name].difference == pytest.approx(
            comparisons[name].value_4bit - comparisons[name].value_8bit
        )


def test_a_class_without_cases_is_left_out_of_macro_f1_and_without_ed_cases_ed_figures_are_not_available():
    comparisons = by_name(decided([1, 1, 2, 2], [1, 0, 2, 2], [1, 1, 2, 2]))
    assert comparisons["macro_f1"].value_4bit == pytest.approx((2 / 3 + 1) / 2)
    for name in ("ed_recall", "ed_f2"):
        comparison = comparisons[name]
        assert (comparison.value_4bit, comparison.difference, comparison.verdict) == (None, None, None)
        assert comparisons[name].note == "not available: no ED case in the set"
    assert by_name(decided([0], [0], [0]), None)["expected_cost"].note == "not available: no cost matrix was given"


def test_discordant_cases_and_mcnemar_are_counted_among_ed_cases_for_ed_recall():
    label = [0] * 8 + [1] * 4
    four = [0] * 6 + [1, 2] + [1] * 4
    eight = [1] * 6 + [0, 2] + [0] * 4
    comparisons = by_name(decided(label, four, eight))
    assert (comparisons["accuracy"].b, comparisons["accuracy"].c, comparisons["accuracy"].n) == (10, 1, 12)
    assert (comparisons["ed_recall"].b, comparisons["ed_recall"].c, comparisons["ed_recall"].n) == (6, 1, 8)
    assert comparisons["ed_recall"].mcnemar_p == pytest.approx(2 * (1 + 7) / 2**7)
    by_hand = {(6, 0): 0.03125, (0, 5): 0.0625, (0, 0): 1.0, (3, 3): 1.0}
    assert {pair: mcnemar(*pair) for pair in by_hand} == pytest.approx(by_hand)


def _score_by_search(b, c, n, d):
    """The score statistic at d, with the constrained maximum of the likelihood found numerically."""

    def negative(q):
        cells = ((b, q + d), (c, q), (n - b - c, 1 - 2 * q - d))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    q = minimize_scalar(
        negative, bounds=(max(0, -d) + 1e-13, (1 - d) / 2 - 1e-13), method="bounded", options={"xatol": 1e-13}
    ).x
    return (b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


@pytest.mark.parametrize(("b", "c", "n"), [(3, 1, 50), (0, 5, 30), (7, 7, 100), (150, 86, 1600), (1, 0, 400)])
def test_the_tango_interval_ends_where_the_score_reaches_the_normal_quantile(b, c, n):
    low, high = tango_interval(b, c, n)
    assert _score_by_search(b, c, n, low) == pytest.approx(1.959964, abs=2e-3)
    assert _score_by_search(b, c, n, high) == pytest.approx(-1.959964, abs=2e-3)
    assert tango_interval(c, b, n) == pytest.approx((-high, -low))


def test_without_discordant_cases_the_tango_interval_still_has_its_closed_form_width():
    z2 = 1.959964**2
    for n in (20, 300):
        assert tango_interval(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)), rel=1e-5)
    assert tango_interval(10, 0, 10)[1] == 1.0 and tango_interval(0, 10, 10)[0] == -1.0


def test_the_bootstrap_interval_is_as_wide_as_the_standard_error_of_paired_differences_says():
    label, four, eight = noisy(1500, 3)
    pair = decided(label, four, eight)
    assert compare(pair, COST) == compare(pair, COST), "the same every time"
    cost = by_name(pair)["expected_cost"]
    assert cost.verdict is None and cost.margin is None and cost.low < cost.high
    comparison = by_name(pair)["accuracy"]
    differences = (four == label).astype(float) - (eight == label)
    expected = 2 * 1.96 * differences.std() / math.sqrt(1500)
    assert comparison.bootstrap_high - comparison.bootstrap_low == pytest.approx(expected, rel=0.08)
    assert comparison.bootstrap_low < comparison.difference < comparison.bootstrap_high


def test_cases_that_repeat_within_groups_widen_the_interval_as_if_each_group_were_one_case():
    label, four, eight = noisy(100, 5)
    single = by_name(decided(label, four, eight))["macro_f1"]
    repeated = [np.repeat(x, 9) for x in (label, four, eight)]
    grouped = by_name(decided(*repeated, unit=np.repeat(np.arange(100), 9)))["macro_f1"]
    naive = by_name(decided(*repeated))["macro_f1"]
    assert (grouped.low, grouped.high) == (single.low, single.high)
    assert (grouped.groups, naive.groups) == (100, None)
    assert "assumes independent cases" in naive.method and "100 groups" in grouped.method
    assert naive.high - naive.low == pytest.approx((single.high - single.low) / 3, rel=0.15)


@pytest.mark.parametrize(
    ("lost", "n", "verdict"),
    [(0, 60, "cannot conclude"), (0, 1500, "not inferior"), (300, 1500, "inferior"), (30, 1500, "cannot conclude")],
)
def test_verdicts_need_the_whole_interval_on_one_side_of_the_margin(lost, n, verdict):
    label = np.zeros(n, dtype=int)
    four = np.where(np.arange(n) < lost, 1, 0)
    comparison = by_name(decided(label, four, label))["ed_recall"]
    assert (comparison.verdict, comparison.margin) == (verdict, 0.02)
    assert comparison.low == min(comparison.bootstrap_low, comparison.tango_low)
    assert comparison.high == max(comparison.bootstrap_high, comparison.tango_high)


def test_an_interval_without_width_or_of_too_few_groups_concludes_nothing():
    label, four, _ = noisy(300, 1)
    same = by_name(decided(label, four, four))
    assert (same["ed_f2"].verdict, same["macro_f1"].verdict) == ("cannot conclude", "cannot conclude")
    assert "no width" in same["ed_f2"].note
    few = by_name(decided(label, four, label, unit=np.arange(300) % 9))
    assert few["macro_f1"].low is None and few["macro_f1"].verdict == "cannot conclude"
    assert few["accuracy"].low == few["accuracy"].tango_low and few["accuracy"].bootstrap_low is None
    assert "9 groups are too few" in few["accuracy"].note
    # The Tango interval of 400 cases decided alike lies above the margin, and assumes that they are independent.
    label = np.zeros(400, dtype=int)
    few = by_name(decided(label, label, label, unit=np.arange(400) % 9))["ed_recall"]
    assert few.low == few.tango_low > -0.02 and few.verdict == "cannot conclude"
    assert by_name(decided(label, label, label, unit=np.arange(400) % 10))["ed_recall"].verdict == "not inferior"

    label, four, eight = noisy(300, 1)
    unit = np.arange(300) % 60
    label = np.where((label == 2) & (unit > 5), 1, label)
    few = by_name(decided(label, four, eight, unit=unit))["macro_f1"]
    assert few.difference is not None and few.low is None and few.verdict == "cannot conclude"
    assert "groups of the rarest class are too few" in few.note


@pytest.mark.parametrize("emergencies", [4, 9, 10])
def test_below_ten_emergencies_without_groups_nothing_is_concluded_about_them(emergencies):
    label = np.array([0] * emergencies + [1] * (60 - emergencies))
    missed = np.where(label == 0, 1, label)
    comparison = by_name(decided(label, missed, label))["ed_recall"]
    assert comparison.high < -0.02, "every emergency is missed at 4 bits alone"
    assert comparison.verdict == ("inferior" if emergencies >= 10 else "cannot conclude")


def test_a_resample_without_one_of_the_classes_has_no_macro_f1():
    whole = np.full((3, 3), 2.0)
    without = np.array([[3.0, 0, 0], [1, 2, 0], [0, 0, 0]])
    tables = np.stack([whole, without, *np.random.default_rng(0).integers(1, 9, size=(3, 3, 3)).astype(float)])
    together = compared_metrics(tables, COST)
    assert together["macro_f1"][0] == pytest.approx(1 / 3) and np.isnan(together["macro_f1"][1])
    for i in range(2, 5):
        alone = compared_metrics(tables[i : i + 1], COST)
        assert {k: v[i] for k, v in together.items()} == {k: v[0] for k, v in alone.items()}
