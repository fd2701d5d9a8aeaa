import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, fbeta_score, precision_recall_fscore_support

from tasks.judging.gates import judge_gates
from tasks.judging.intervals import CLUSTERED, EXACT, STRATIFIED, clopper_pearson
from tasks.judging.metrics import (
    confusion,
    label_probabilities,
    metric_table,
    resample_metrics,
    subgroup_metrics,
    subgroup_rows,
)
from tasks.judging.point_metrics import METRICS, cost_array, label_codes, metric_values
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS
from tests.test_spec import COSTS

COST_ARRAY = cost_array(COSTS)
TABLES = [60, pytest.param(1000, marks=pytest.mark.nightly)]


def random_sets(count, seed=0):
    """Labels and decisions of many kinds: few cases, absent classes, one class, one decision, perfect, hopeless."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n = int(rng.choice([1, 2, 3, 5, 12, 60]))
        true_classes, decided_classes = (rng.permutation(3)[: rng.integers(1, 4)] for _ in range(2))
        truth = rng.choice(true_classes, n)
        decided = rng.choice(decided_classes, n)
        keep = rng.random(n) < rng.choice([0, 0.5, 0.95, 1])
        yield [LABELS[i] for i in truth], [LABELS[i] for i in np.where(keep, truth, decided)]


def same(ours, theirs):
    return (math.isnan(ours) and math.isnan(theirs)) or ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("tables", TABLES)
def test_every_metric_equals_scikit_learn_on_random_tables(tables):
    absent = empty_prediction = 0
    for labels, decisions in random_sets(tables):
        table = confusion(labels, decisions)
        # scikit-learn is slow on strings
        truth = label_codes(labels)
        decided = label_codes(decisions)
        assert (table == confusion_matrix(truth, decided, labels=range(3))).all()
        metrics = metric_values(table, COST_ARRAY)
        assert same(metrics["accuracy"], accuracy_score(truth, decided))
        options = {"labels": range(3), "zero_division": np.nan}
        precision, recall, f1, support = precision_recall_fscore_support(truth, decided, **options)
        f2 = fbeta_score(truth, decided, beta=2, average=None, **options)

        for i, label in enumerate(LABELS):
            for name, reference in {"precision": precision, "recall": recall, "f1": f1, "f2": f2}.items():
                expected = reference[i] if support[i] else math.nan
                assert same(metrics[f"{label.lower()}_{name}"], expected), (label, name, table)
            absent += support[i] == 0
            empty_prediction += support[i] > 0 and i not in decided

        macro = f1_score(truth, decided, labels=np.unique(truth), average="macro", zero_division=np.nan)
        assert same(metrics["macro_f1"], macro)
        assert same(metrics["ed_false_negative_rate"], 1 - recall[0])

    assert absent > 0.3 * tables and empty_prediction > 0.2 * tables  # the corners were met


@cache
def exact_ends(k, n):
    """SciPy's exact interval."""
    interval = binomtest(k, n).proportion_ci(method="exact")
    return interval.low, interval.high


@pytest.mark.parametrize("tables", TABLES)
def test_triage_direction_cost_and_exact_intervals_equal_other_libraries_and_what_is_missing_has_a_reason(tables):
    costs = np.array([[COSTS[t][a] for a in LABELS] for t in LABELS], dtype=float)
    without_skill = intervals = clustered = 0
    for number, (labels, decisions) in enumerate(random_sets(tables)):
        truth = label_codes(labels)
        decided = label_codes(decisions)
        groups = [f"g{i // 2}" for i in range(len(labels))] if number % 2 else None
        metrics = by_name(labels, decisions, groups, COSTS, resamples=50)
        assert same(metrics["over_triage"].value, np.mean(decided < truth))
        assert same(metrics["under_triage"].value, np.mean(decided > truth))
        spent = costs[truth, decided]
        perfect = costs[truth, truth]
        always_ed = costs[truth, 0]
        assert same(metrics["expected_cost"].value, spent.mean())

        saved = always_ed.sum() - perfect.sum()
        if saved > 0:
            assert same(metrics["cost_skill"].value, (always_ed.sum() - spent.sum()) / saved)
        else:
            without_skill += 1
            assert metrics["cost_skill"].value is None and "always-ED costs no more" in metrics["cost_skill"].note

        for name, m in metrics.items():
            assert (m.exact_low is None) == (m.value is None or not is_proportion(name)), name
            if m.exact_low is not None:
                intervals += 1
                expected = exact_ends(round(m.value * m.n), m.n)
                assert (m.exact_low, m.exact_high) == pytest.approx(expected, abs=1e-9), (name, m)

            if m.value is None:
                assert m.note.startswith("not available: ") and m.low is m.high is None
            elif m.low is None:
                assert "no interval: " in m.note and m.method == "none"
            else:
                clustered += m.method == CLUSTERED
                assert m.low <= m.high and (m.method != EXACT or m.low <= m.value <= m.high)

    assert without_skill > 0.05 * tables and intervals > 5 * tables and exact_ends.cache_info().currsize > 0.3 * tables
    assert clustered > tables / 2


def is_proportion(name):
    whole = ("accuracy", "over_triage", "under_triage", "ed_false_negative_rate")
    return name in whole or name.endswith(("_recall", "_precision"))


def test_a_stack_of_tables_gives_what_each_table_gives():
    tables = np.array([confusion(*case) for case in random_sets(50) if len(set(case[0])) == 3])
    stacked = metric_values(tables, COST_ARRAY)
    assert list(stacked) == list(METRICS)
    for i, table in enumerate(tables):
        assert all(same(stacked[name][i], float(value)) for name, value in metric_values(table, COST_ARRAY).items())


def by_name(*args, **options):
    return {row["metric"]: SimpleNamespace(**row) for row in metric_table(*args, **options)}


NO_COSTS = "not available: no cost matrix"
NO_SKILL = "not available: always-ED costs no more than perfect decisions on these cases"
NO_BOOTSTRAP = "no interval: 1 case is too few for a bootstrap (it needs 10)"


@pytest.mark.parametrize(
    ("labels", "decisions", "costs", "expected"),
    [
        # an absent class is not available and never zero
        (
            ["GP", "HOME"] * 20, ["GP", "ED"] * 20, COSTS,
            {f"ed_{name}": (None, "not available: no ED case in this set") for name in ("recall", "precision", "f2")}
            | {"ed_false_negative_rate": (None, "not available: no ED case in this set")}
            | {"macro_f1": (0.5, "over the classes present: GP, HOME; assumes independent cases")},
        ),
        # a label never decided has no precision but a true zero F2
        (
            ["ED", "GP", "HOME"] * 20, ["GP", "GP", "HOME"] * 20, None,
            {"ed_precision": (None, "not available: no case was decided ED"), "ed_f2": (0, "assumes independent cases")}
            | {"expected_cost": (None, NO_COSTS), "cost_skill": (None, NO_COSTS)},
        ),
        # all of nothing must not read as accuracy 0
        ([], [], COSTS, dict.fromkeys(METRICS, (None, "not available: no cases"))),
        (["ED"], ["ED"], COSTS, {"ed_f2": (1, NO_BOOTSTRAP), "cost_skill": (None, NO_SKILL)}),
    ],
    ids=["an absent class", "a label never decided", "no cases", "one case"],
)  # fmt: skip
def test_what_a_set_cannot_give_has_no_value_and_a_reason(labels, decisions, costs, expected):
    rows = by_name(labels, decisions, costs=costs)
    assert list(rows) == list(METRICS)
    assert {name: (rows[name].value, rows[name].note) for name in expected} == expected
    assert all(row.low is None for row in rows.values() if row.value is None or "no interval" in row.note)
    if len(labels) == 1:
        assert (rows["ed_recall"].low, rows["ed_recall"].high) == (pytest.approx(0.025), 1)


def test_without_groups_each_class_keeps_its_number_of_cases_in_every_resample():
    labels = ["ED"] * 16 + ["GP"] * 184
    decisions = ["ED"] * 12 + ["GP"] * 188
    (resampled,) = resample_metrics(labels, decisions)
    caught = resampled.values["ed_recall"] * 16
    assert np.allclose(caught, caught.round()) and len(set(caught.round())) > 5


def test_both_intervals_stand_beside_the_wider_one_which_is_named():
    """Groups of equal cases make the clustered interval wider; groups of one leave the exact one wider."""
    labels = ["ED"] * 200 + ["GP"] * 200
    decisions = ["ED"] * 150 + ["GP"] * 50 + ["GP"] * 200
    groups = [f"g{i // 10}" for i in range(400)]
    for m in by_name(labels, decisions, groups, COSTS).values():
        ends = {(m.exact_low, m.exact_high), (m.clustered_low, m.clustered_high)}
        assert m.value is None or (m.low, m.high) in ends

    recall = by_name(labels, decisions, groups)["ed_recall"]
    single = by_name(labels, decisions, [f"g{i}" for i in range(400)])["ed_recall"]
    none = by_name(labels, decisions)["ed_recall"]
    few = by_name(labels, decisions, [f"g{i % 3}" for i in range(400)])["ed_recall"]
    assert recall.method == CLUSTERED and single.method == none.method == few.method == EXACT
    assert recall.high - recall.low > 2 * (single.high - single.low)
    assert none.note == "assumes independent cases" and recall.note is None
    assert few.note == "assumes independent cases: 3 groups are too few for a bootstrap (it needs 10)"

    f2 = by_name(labels, decisions, groups)["ed_f2"]
    assert (recall.exact_low, recall.exact_high) == clopper_pearson(150, 200)
    assert recall.clustered_low < recall.exact_low < recall.exact_high < recall.clustered_high
    assert f2.exact_low is None and f2.clustered_low == f2.low
    alone = by_name(labels, decisions)
    assert alone["ed_recall"].clustered_low is None and alone["ed_f2"].clustered_low is alone["ed_f2"].exact_low is None
    gates = {gate["gate"]: SimpleNamespace(**gate) for gate in judge_gates(labels, decisions, groups)[0]}
    assert gates["ed_recall"].bound == gates["ed_recall"].clustered_low < gates["ed_recall"].exact_low
    rate = gates["ed_false_negative_rate"]
    assert rate.clustered_high == rate.bound == pytest.approx(1 - gates["ed_recall"].clustered_low)
    assert rate.exact_low == pytest.approx(clopper_pearson(50, 200)[0])


def test_the_bootstrap_of_f2_covers_the_truth():
    """Of 60 sets drawn from one model with a known F2, about 57 intervals hold it."""
    rng = np.random.default_rng(0)
    truth = ["ED"] * 60 + ["GP"] * 140
    recall, false_alarm = 0.85, 0.1
    f2 = 5 * 60 * recall / (4 * 60 + 60 * recall + 140 * false_alarm)
    holding_sets = 0
    for _ in range(60):
        ed = np.concatenate([rng.random(60) < recall, rng.random(140) < false_alarm])
        (resampled,) = resample_metrics(truth, ["ED" if e else "GP" for e in ed], resamples=500)
        interval = resampled.interval("ed_f2")
        assert interval.method == STRATIFIED
        holding_sets += interval.low <= f2 <= interval.high
    assert holding_sets >= 52


def test_bad_probabilities_are_refused_in_a_sentence():
    for p, words in (
        ([[1, 0, 0], [math.nan, 0.5, 0.5]], "Row 2 .*not finite"),
        ([[0.5, 0.4, 0]], "Row 1 .*not sum to 1"),
    ):
        with pytest.raises(BadInput, match=words):
            label_probabilities(p)


def metrics_in(subgroups, labels, decisions, *args):
    """Metrics by subgroup and name."""
    metrics_by_subgroup = subgroup_metrics(subgroup_rows(subgroups), labels, decisions, *args)
    return {(*key, row["metric"]): SimpleNamespace(**row) for key, rows in metrics_by_subgroup.items() for row in rows}


def test_a_subgroup_has_every_metric_of_its_own_cases_with_interval_and_count():
    voices = np.array(["nurse", "patient"] * 60)
    labels = np.array(["ED", "ED", "GP", "HOME"] * 30)
    decisions = np.array(["ED" if i % 8 else "GP" for i in range(120)])
    metrics = metrics_in([{"voice": v} for v in voices], labels.tolist(), decisions.tolist(), None, COSTS)

    for voice, recall in (("nurse", 0.5), ("patient", 1.0)):
        own = labels[voices == voice].tolist()
        for name, metric in by_name(own, decisions[voices == voice].tolist(), None, COSTS).items():
            of_subgroup = metrics["voice", voice, name]
            few = any(name.startswith(f"{label.lower()}_") and own.count(label) < 10 for label in LABELS)
            assert of_subgroup.value == (None if few else metric.value)
            if not few and metric.method.startswith("exact"):
                assert of_subgroup == metric
            elif not few and metric.low is not None:
                ends = (of_subgroup.low, of_subgroup.high)
                assert ends == pytest.approx((metric.low, metric.high), rel=0.1, abs=0.08)
        assert metrics["voice", voice, "ed_recall"].value == recall
    assert metrics["voice", "nurse", "ed_recall"].n == 30


def test_all_subgroups_have_the_intervals_of_their_own_groups():
    """By hand: whole groups are drawn, and each subgroup takes its cases of them."""
    rng = np.random.default_rng(1)
    groups = [f"g{i % 40}" for i in range(400)]
    labels = [str(x) for x in rng.choice(["ED", "GP"], 400)]
    decisions = [x if rng.random() < 0.5 + (i % 40) / 100 else "HOME" for i, x in enumerate(labels)]
    subgroups = [{"age": "child" if rng.random() < 0.4 else "adult"} for _ in range(400)]
    metrics = metrics_in(subgroups, labels, decisions, groups)["age", "child", "accuracy"]
    child = np.array([s["age"] == "child" for s in subgroups])
    hit = np.array(labels) == np.array(decisions)
    unit = np.array([i % 40 for i in range(400)])
    hits, cases = (np.bincount(unit, weights=x, minlength=40) for x in (child & hit, child))
    drawn = rng.integers(40, size=(4000, 40))
    by_hand = np.quantile(hits[drawn].sum(axis=1) / cases[drawn].sum(axis=1), [0.025, 0.975])
    assert (metrics.clustered_low, metrics.clustered_high) == pytest.approx(tuple(by_hand), abs=0.01)


def test_few_cases_are_not_available_with_their_number():
    metrics = metrics_in([{"age_band": "child"}] * 9 + [{}], ["ED"] * 10, ["ED"] * 10)
    for name, cases in (("ed_recall", "9 ED cases"), ("accuracy", "9 cases")):
        metric = metrics["age_band", "child", name]
        assert metric.note == f"not available: {cases} of this subgroup are too few (it needs 10)" and metric.n == 9
    assert all(metric.value is None and metric.note for metric in metrics.values())
    assert metrics_in([{}], ["ED"], ["ED"]) == {}
