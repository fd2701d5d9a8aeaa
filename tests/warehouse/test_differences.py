import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, f1_score, fbeta_score, recall_score, roc_auc_score

from tasks.judging.point_metrics import confusion_cells, metric_values
from tasks.spec import ED_AUROC
from warehouse.comparison.cells import OF_EMERGENCIES, JudgedCases
from warehouse.comparison.differences import COST, LOSS, METRICS, differences, mcnemar, tango_interval

COSTS = np.array([[1, 100, 100], [2, 1, 10], [2, 3, 1]], dtype=float)
ALL = (*METRICS, COST, ED_AUROC, LOSS)


def judged(truth, decided, unit=None, p_ed=None, losses=None) -> JudgedCases:
    """Cases that several models decided, two a pair; without `unit` they have no groups."""
    truth, decided = np.asarray(truth), np.asarray(decided)
    p_ed = np.where(decided == 0, 0.8, 0.1) if p_ed is None else p_ed
    return JudgedCases(
        np.arange(len(truth)) if unit is None else np.asarray(unit), truth, {"argmax": decided}, p_ed,
        np.zeros(decided.shape) if losses is None else losses, unit is not None,
    )  # fmt: skip


def rows(cases: JudgedCases, pairs=(0,), costs=COSTS) -> dict[str, dict]:
    return {row["metric"]: row for row in differences(cases, [({}, pairs)], ["argmax"], ALL, costs)}


def random_cases(seed=0, groups=60, size=6, models=2) -> JudgedCases:
    """Groups that are harder for all models or for one; probabilities on a grid, so that some are equal."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(groups), size)
    truth = np.where(rng.random(len(unit)) < 0.7, rng.integers(0, 3, groups)[unit], rng.integers(0, 3, len(unit)))
    skill = 1 + rng.normal(size=groups)[unit] + 0.5 * rng.normal(size=(models, groups))[:, unit]
    decided = np.where(skill + rng.normal(size=skill.shape) > 0, truth, rng.integers(0, 3, skill.shape))
    logits = 1.5 * (truth == 0) + skill + rng.normal(size=skill.shape)
    return judged(truth, decided, unit, np.round(1 / (1 + np.exp(-logits)), 2), rng.random(skill.shape))


def by_scikit_learn(cases: JudgedCases, model: int) -> dict[str, float]:
    truth, decided = cases.truth, cases.decided["argmax"][model]
    return {
        "accuracy": accuracy_score(truth, decided),
        "ed_recall": recall_score(truth, decided, labels=[0], average="macro"),
        "ed_f2": fbeta_score(truth, decided, beta=2, labels=[0], average="macro"),
        "macro_f1": f1_score(truth, decided, average="macro"),
        "over_triage": np.mean(decided < truth),
        COST: COSTS[truth, decided].mean(),
        ED_AUROC: roc_auc_score(truth == 0, cases.p_ed[model]),
        LOSS: cases.losses[model].mean(),
    }


def test_figures_equal_scikit_learn_and_are_means_over_the_seeds():
    cases = random_cases(models=6)
    of_models = [by_scikit_learn(cases, model) for model in range(6)]
    for metric, row in rows(cases, [0, 2]).items():
        four, eight = (np.mean([of_models[model][metric] for model in side]) for side in ((0, 4), (1, 5)))
        assert (row["value_4bit"], row["value_8bit"]) == pytest.approx((four, eight), abs=1e-12), metric
        assert row["difference"] == pytest.approx(four - eight, abs=1e-12)
        assert row["low"] < row["difference"] < row["high"] and row["seeds"] == 2
        assert (row["verdict"] is None) == (metric in (COST, LOSS)) == (row["p_value"] is None)
        if row["p_value"] is not None:
            gained = row["difference"] * (-1 if metric == "over_triage" else 1)
            expected = stats.t.sf((gained + 0.02) / row["standard_error"], row["freedom"])
            assert row["p_value"] == pytest.approx(expected)


def test_what_a_unit_adds_is_how_much_the_figure_moves_when_the_unit_counts_a_little_more():
    cases = random_cases(3, groups=20, models=1)
    cells = confusion_cells(cases.truth, cases.decided["argmax"][0])
    step = 1e-5

    def figures(weights):
        of_table = metric_values((weights[:, None] * cells).sum(axis=0).reshape(3, 3), COSTS)
        return of_table | {ED_AUROC: roc_auc_score(cases.truth == 0, cases.p_ed[0], sample_weight=weights)}

    more, less = ([figures(1 + sign * step * (cases.unit == unit)) for unit in range(20)] for sign in (1, -1))
    for metric in (*METRICS, COST, ED_AUROC):
        moved = [float(a[metric] - b[metric]) / (2 * step) for a, b in zip(more, less, strict=True)]
        influences = cases.cells("argmax", COSTS).measured(metric).influences[0]
        counted = [value for value in moved if value or metric not in OF_EMERGENCIES]
        assert influences == pytest.approx(counted, abs=1e-8), metric


def test_one_pair_has_the_clustered_interval_of_statsmodels():
    cases = random_cases(5)
    gains = np.subtract(*(cases.decided["argmax"] == cases.truth).astype(float))
    fit = sm.OLS(gains, np.ones(len(gains))).fit(
        cov_type="cluster", cov_kwds={"groups": cases.unit, "use_correction": False}
    )
    row = rows(cases)["accuracy"]
    error = fit.bse[0] * math.sqrt(60 / 59)
    half = stats.t.ppf(0.975, 59) * error
    assert (row["standard_error"], row["freedom"], row["groups"]) == (pytest.approx(error), 59, 60)
    assert (row["low"], row["high"]) == pytest.approx((fit.params[0] - half, fit.params[0] + half))
    assert row["note"] == "one training: chance in training is left out"


def test_no_interval_of_two_shares_passes_1():
    truth = np.zeros(300, dtype=int)
    decided = np.stack([np.full(300, 2), np.zeros(300, dtype=int)])
    decided[0, :10] = 0
    row = rows(judged(truth, decided, np.arange(300) // 10))["ed_recall"]
    assert row["low"] == -1.0 and row["difference"] < row["high"] < -0.8


def test_the_error_of_an_auroc_is_that_of_obuchowski():
    """From the formulas of the paper, sections 2 and 3."""
    cases = random_cases(2)
    positive = cases.truth == 0
    parts = []
    for p in cases.p_ed:
        above = (p[positive][:, None] > p[~positive]) + 0.5 * (p[positive][:, None] == p[~positive])
        ten = np.bincount(cases.unit[positive], above.mean(axis=1) - above.mean(), 60) / positive.sum()
        one = np.bincount(cases.unit[~positive], above.mean(axis=0) - above.mean(), 60) / (~positive).sum()
        parts.append((ten, one))
    ten, one = (first - second for first, second in zip(*parts, strict=True))
    expected = math.sqrt(60 / 59 * ((ten**2).sum() + (one**2).sum() + 2 * (ten * one).sum()))
    assert rows(cases)[ED_AUROC]["standard_error"] == pytest.approx(expected, rel=1e-9)


def test_neither_the_order_of_cases_nor_that_of_seeds_matters_and_one_whose_rule_was_not_applied_is_left_out():
    cases = random_cases(7, models=6)
    order = np.random.default_rng(0).permutation(len(cases.truth))
    names = np.random.default_rng(1).permutation(60)
    shuffled = judged(
        cases.truth[order], cases.decided["argmax"][:, order], names[cases.unit[order]], cases.p_ed[:, order],
        cases.losses[:, order],
    )  # fmt: skip
    others = rows(shuffled, [2, 0, 1])
    for metric, row in rows(cases, [0, 1, 2]).items():
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        assert {name: others[metric][name] for name in numbers} == pytest.approx(numbers, abs=1e-9), metric
        assert {**others[metric], **numbers} == row

    two = rows(cases, [0, 2])["accuracy"]["difference"]
    cases.decided["argmax"][3] = -1
    row = rows(cases, [0, 1, 2])["accuracy"]
    assert (row["seeds"], row["difference"]) == (2, pytest.approx(two))
    assert rows(cases, [1])["accuracy"]["note"] == "not available: the rule could not be applied on both sides"


def test_cases_that_repeat_within_groups_give_the_interval_of_one_of_each_and_without_groups_all_count():
    cases = random_cases(4, groups=100, size=1)
    nine = judged(np.repeat(cases.truth, 9), np.repeat(cases.decided["argmax"], 9, axis=1), np.repeat(cases.unit, 9))
    single, repeated = (rows(one)["macro_f1"] for one in (cases, nine))
    assert (single["low"], single["high"]) == pytest.approx((repeated["low"], repeated["high"]))

    row = rows(judged(nine.truth, nine.decided["argmax"]))["accuracy"]
    assert (row["groups"], row["freedom"]) == (None, 900 - 1)
    assert row["note"].startswith("cases have no groups and count as independent")


def test_models_that_decide_alike_have_no_width_but_for_proportions_of_one_pair():
    cases = random_cases(6)
    alike = np.repeat(cases.decided["argmax"][:1], 4, axis=0)
    one, two = (rows(judged(cases.truth, alike, cases.unit), pairs) for pairs in ([0], [0, 1]))
    for row in (one["ed_f2"], two["ed_f2"], two["accuracy"]):
        assert (row["difference"], row["low"], row["verdict"]) == (0, None, "cannot conclude")
        assert row["note"].endswith("no interval: no group or case makes a difference")
    accuracy = one["accuracy"]
    assert (accuracy["low"], accuracy["high"]) == tango_interval(0, 0, len(cases.truth))
    assert accuracy["verdict"] == "within" and accuracy["p_value"] < 0.025 and "Tango" in accuracy["note"]


@pytest.mark.parametrize(("wrong", "is_wider"), [(9, True), (10, False)])
def test_tangos_interval_counts_where_hardly_a_case_differs(wrong, is_wider):
    truth = np.zeros(400, dtype=int)
    missed = np.isin(np.arange(400), 40 * np.arange(wrong))
    row = rows(judged(truth, [missed, truth], np.arange(400) // 4))["ed_recall"]
    clustered = row["difference"] - stats.t.ppf(0.975, 99) * row["standard_error"]
    assert ("Tango" in row["note"]) == is_wider and (row["low"] < clustered - 1e-9) == is_wider
    assert (row["b"], row["c"], row["cases"]) == (0, wrong, 400)


def test_few_groups_a_label_that_never_occurs_and_no_costs_have_their_reasons():
    cases = random_cases(1)
    decided = cases.decided["argmax"]
    few = rows(judged(cases.truth, decided, cases.unit % 9))
    assert all(row["low"] is None and row["difference"] is not None for row in few.values())
    assert few["accuracy"]["note"].endswith("no interval: 9 groups are too few (it needs 10)")
    assert few["accuracy"]["verdict"] == "cannot conclude"
    rare = rows(judged(np.where((cases.truth == 2) & (cases.unit > 5), 1, cases.truth), decided, cases.unit))
    assert "groups of the rarest class are too few" in rare["macro_f1"]["note"] and rare["accuracy"]["low"] is not None

    without_ed = rows(judged(np.maximum(cases.truth, 1), decided, cases.unit), costs=None)
    only_ed = rows(judged(np.zeros(40, dtype=int), np.zeros((2, 40), dtype=int)))
    for of_set, metrics, reason in (
        (without_ed, ("ed_recall", "ed_f2", ED_AUROC), "no ED case in the set"),
        (without_ed, (COST,), "no cost matrix was given"),
        (only_ed, (ED_AUROC,), "no case but ED in the set"),
    ):
        for metric in metrics:
            row = of_set[metric]
            assert (row["note"], row["value_4bit"], row["low"]) == (f"not available: {reason}", None, None)


def test_discordant_cases_and_mcnemar_are_counted_among_ed_cases_for_ed_recall():
    truth = [0] * 8 + [1] * 4
    found = rows(judged(truth, [[0] * 6 + [1, 2] + [1] * 4, [1] * 6 + [0, 2] + [0] * 4]))
    counts = {
        metric: tuple(found[metric][name] for name in ("b", "c", "cases")) for metric in ("accuracy", "ed_recall")
    }
    assert counts == {"accuracy": (10, 1, 12), "ed_recall": (6, 1, 8)}
    assert found["ed_recall"]["mcnemar_p"] == pytest.approx(2 * (1 + 7) / 2**7)
    by_hand = {(6, 0): 0.03125, (0, 5): 0.0625, (0, 0): 1.0, (3, 3): 1.0}
    assert {pair: mcnemar(*pair) for pair in by_hand} == pytest.approx(by_hand)


def score_by_search(b, c, n, d):
    """The score statistic at d, with the constrained maximum of the likelihood found numerically."""

    def negative(q):
        cells = ((b, q + d), (c, q), (n - b - c, 1 - 2 * q - d))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    q = minimize_scalar(
        negative, bounds=(max(0, -d) + 1e-13, (1 - d) / 2 - 1e-13), method="bounded", options={"xatol": 1e-13}
    ).x
    return (b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


@pytest.mark.parametrize(("b", "c", "n"), [(3, 1, 50), (0, 5, 30), (1, 0, 400)])
def test_the_tango_interval_ends_where_the_score_reaches_the_normal_quantile(b, c, n):
    low, high = tango_interval(b, c, n)
    assert score_by_search(b, c, n, low) == pytest.approx(1.959964, abs=2e-3)
    assert score_by_search(b, c, n, high) == pytest.approx(-1.959964, abs=2e-3)
    assert tango_interval(c, b, n) == pytest.approx((-high, -low))
    z2 = 1.959964**2
    assert tango_interval(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)), rel=1e-5)
    assert tango_interval(10, 0, 10)[1] == 1.0 and tango_interval(0, 10, 10)[0] == -1.0
