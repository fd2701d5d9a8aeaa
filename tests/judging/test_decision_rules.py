import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from tasks.judging.decision_rules import (
    RULES,
    RuleRecord,
    argmax_rule,
    fit_vector_scaling,
    log_probabilities,
    min_cost_rule,
    recall_at_over_triage,
    record_rules,
    target_recall_threshold,
    threshold_rule,
)
from tasks.judging.evaluation_rows import rule_rows
from tasks.judging.metrics import confusion
from tasks.judging.point_metrics import metric_values
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

COSTS = [[1, 100, 100], [2, 1, 10], [2, 3, 1]]


def scored(n, seed=0, spread=1.5):
    """Probabilities of n cases, which lean towards their labels, and these."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    return softmax(rng.normal(size=(n, 3)) + spread * np.eye(3)[truth], axis=1), [LABELS[i] for i in truth]


def chosen_rules(p, labels, **options):
    """The rules as an evaluation reads them, chosen on calibration cases."""
    record = record_rules(p, labels, "digest", **options)
    again = RuleRecord.from_json(record.to_json())
    assert again == record and list(again.rules) == list(RULES)
    return again


def test_ties_go_to_the_more_urgent_label():
    third = [[1 / 3, 1 / 3, 1 / 3], [0.2, 0.4, 0.4]]
    assert argmax_rule(third) == ["ED", "GP"]
    assert threshold_rule([[0.2, 0.4, 0.4]], 0.3) == ["GP"]
    assert threshold_rule([[0.3, 0.5, 0.2], [0.29, 0.5, 0.21], [0.1, 0.2, 0.7]], 0.3) == ["ED", "GP", "HOME"]
    assert min_cost_rule(third, np.ones((3, 3))) == ["ED", "ED"]


@pytest.mark.parametrize(
    ("n_ed", "target", "allowed"),
    [
        (49, 0.98, 1),
        (48, 0.98, 0),
        (353, 0.95, 17),
        (9, 0.9, 1),
        (8, 0.9, 0),
        (19, 0.95, 1),
        (24, 0.96, 1),
        (1, 0.5, 0),
    ],
)
def test_allowed_misses_are_the_floor_of_the_formula_despite_rounding(n_ed, target, allowed):
    threshold = target_recall_threshold(np.linspace(0.1, 0.9, n_ed), ["ED"] * n_ed, target)
    assert (threshold.allowed_misses, threshold.misses, threshold.n_ed) == (allowed, allowed, n_ed)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.integers(0, 20)), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.98]),
)
def test_the_threshold_is_the_highest_one_with_few_enough_misses(cases, target):
    labels = [label for label, _ in cases]
    scores = np.array([score / 20 for _, score in cases])
    of_ed = scores[np.array(labels) == "ED"]
    threshold = target_recall_threshold(scores, labels, target)
    if not len(of_ed):
        assert threshold is None
        return

    allowed = min(math.floor((1 - target) * (len(of_ed) + 1) + 1e-9), len(of_ed) - 1)
    highest = max(v for v in of_ed if (of_ed < v).sum() <= allowed)
    assert threshold.value == highest
    assert threshold.misses == (of_ed < highest).sum() <= allowed


def test_the_bound_of_the_threshold_holds_in_95_of_100_calibration_sets():
    """True recall of the chosen threshold against its one-sided 97.5 % bound, for a known score distribution."""
    rng = np.random.default_rng(0)
    holding_sets = 0
    for _ in range(400):
        threshold = target_recall_threshold(rng.random(60), ["ED"] * 60, 0.95)
        holding_sets += (1 - threshold.value) >= threshold.bound  # scores are uniform: recall is 1 - threshold
    assert 0.95 <= holding_sets / 400 < 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.lists(st.integers(1, 20), min_size=9, max_size=9))
def test_minimum_cost_is_the_cheapest_of_three_by_hand(weights, prices):
    p = np.array(weights) / sum(weights)
    costs = np.reshape(prices, (3, 3))
    expected = [sum(p[t] * costs[t][a] for t in range(3)) for a in range(3)]
    cheapest = LABELS.index(min_cost_rule([p], costs.tolist())[0])
    assert expected[cheapest] <= min(expected) + 1e-12
    assert min_cost_rule([[0.02, 0.58, 0.4]], COSTS) == ["ED"]


def test_vector_scaling_finds_the_temperature_and_biases_that_were_planted():
    rng = np.random.default_rng(0)
    true_log = log_softmax(rng.normal(size=(20_000, 3)) * 2, axis=1)
    drawn = (np.exp(true_log).cumsum(axis=1) > rng.random(20_000)[:, None]).argmax(axis=1)
    truth = [LABELS[i] for i in drawn]
    temperature = 2.5
    biases = np.array([1.0, -0.5, 0.0])
    distorted = log_softmax((true_log - biases) * temperature, axis=1)
    fit = fit_vector_scaling(distorted, truth)
    assert fit.temperature == pytest.approx(temperature, rel=0.05)
    assert fit.biases == pytest.approx(tuple(biases), abs=0.1) and not fit.at_bound
    assert np.abs(fit.apply(distorted) - np.exp(true_log)).max() < 0.03

    def nll(temperature, biases):
        return -log_softmax(distorted / temperature + biases, axis=1)[np.arange(20_000), drawn].mean()

    best = nll(fit.temperature, np.array(fit.biases))
    for step in rng.normal(scale=0.05, size=(10, 3)) * [0.2, 1, 1]:
        biases_beside = np.append(np.array(fit.biases[:2]) + step[1:], 0)
        assert best <= nll(1 / (1 / fit.temperature + step[0]), biases_beside) + 1e-9


def test_separable_calibration_stops_at_its_bound_and_says_so():
    p = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]] * 4)
    fit = fit_vector_scaling(np.log(p), LABELS * 4)
    assert fit.at_bound and fit.temperature == pytest.approx(0.1)
    assert "stopped at its bound" in chosen_rules(p, LABELS * 4, costs=COSTS).rules["min_cost"].note
    certain = chosen_rules(np.eye(3)[[0, 1, 2] * 4], LABELS * 4, costs=COSTS).rules["min_cost"]
    assert certain.decide(np.eye(3), COSTS) == ["ED", "GP", "HOME"], "a probability of 0 has a logarithm"


def test_stored_rules_stand_side_by_side_and_decide_as_their_parts_do_to_the_last_bit():
    p, labels = scored(90)
    test, _ = scored(300, 1)
    record = chosen_rules(p, labels, target=0.9, costs=COSTS)
    threshold = record.rules["target_recall"].threshold
    scaling = record.rules["min_cost"].scaling
    assert threshold == target_recall_threshold(p[:, 0], labels, 0.9)
    decisions = {name: rule.decide(test, COSTS) for name, rule in record.rules.items()}
    assert decisions == {
        "argmax": argmax_rule(test),
        "target_recall": threshold_rule(test, threshold.value),
        "min_cost": min_cost_rule(scaling.apply(log_probabilities(test)), COSTS),
    }

    rows = {row["rule"]: row for row in rule_rows(record, "2026-01-01T00:00:00")}
    columns = ("threshold", "allowed_misses", "misses", "n_ed", "bound", "target")
    assert [rows["target_recall"][key] for key in columns] == [*vars(threshold).values(), 0.9]
    assert rows["argmax"]["threshold"] is None
    assert rows["min_cost"]["temperature"] == scaling.temperature and rows["min_cost"]["bias_gp"] == scaling.biases[1]
    assert rows["min_cost"]["bias_home"] == 0 and rows["min_cost"]["target"] is None


def test_a_rule_that_is_not_available_says_why_and_decides_nothing():
    p, labels = scored(30)
    calm = [i for i, label in enumerate(labels) if label != "ED"]
    without_ed = (p[calm], [labels[i] for i in calm])
    no_ed = "no ED case in the calibration set"
    given = {"target": 0.9, "costs": COSTS}
    for calibration, options, target_recall, min_cost in (
        ((p, labels), {}, "the recipe has no target ED recall", "no cost matrix"),
        (without_ed, given, no_ed, no_ed),
        ((np.empty((0, 3)), []), given, no_ed, "no ED or GP or HOME case in the calibration set"),
        ((p, labels), given | {"constant": True}, *["a constant answer has no scores to choose a rule on"] * 2),
    ):
        record = chosen_rules(*calibration, **options)
        notes = [row["note"] for row in rule_rows(record, "2026-01-01T00:00:00")]
        assert notes == [None, f"not available: {target_recall}", f"not available: {min_cost}"]
        assert [rule.decide(p, COSTS) for rule in record.rules.values()] == [argmax_rule(p), None, None]


def by_hand(p, labels, limit: float) -> float:
    """The best recall among the decisions of the rule at every threshold, by the project's own metrics."""
    best = 0.0
    for threshold in [*p[:, 0], 2.0]:
        values = metric_values(confusion(labels, threshold_rule(p, threshold)).astype(float)[None])
        if values["over_triage"][0] <= limit + 1e-12:
            best = max(best, float(values["ed_recall"][0]))
    return best


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.9]))
def test_recall_at_an_over_triage_is_that_of_the_best_threshold_of_the_rule_within_it(seed, limit):
    rng = np.random.default_rng(seed)
    cases = int(rng.integers(3, 25))
    p = rng.dirichlet([1, 1, 1], cases).round(1) + 1e-3  # ties are common
    p /= p.sum(1, keepdims=True)
    labels = ["ED", *rng.choice(LABELS, cases - 1)]
    assert recall_at_over_triage(p, labels, limit) == pytest.approx(by_hand(p, labels, limit))
    assert math.isnan(recall_at_over_triage(p, ["GP"] * cases, limit))


def test_the_most_probable_label_chosen_again_changes_nothing_at_its_own_precision_and_undoes_a_shift_at_another():
    p, labels = scored(300)
    others, _ = scored(300, seed=1)
    assert chosen_rules(p, labels, own_p=p).rules["argmax"].decide(others) == argmax_rule(others)

    shifted = softmax(np.log(others) / 2 + [-2, 0.3, 0], axis=1)
    moved = softmax(np.log(p) / 2 + [-2, 0.3, 0], axis=1)
    again = chosen_rules(moved, labels, own_p=p).rules["argmax"].decide(shifted)
    assert (
        np.mean(np.array(again) == argmax_rule(others))
        > 0.99
        > np.mean(np.array(argmax_rule(shifted)) == argmax_rule(others))
    )

    without = [label for label in labels if label != "ED"]
    with pytest.raises(BadInput, match="calibration has no ED case"):
        record_rules(p[: len(without)], without, "digest", own_p=p[: len(without)], primary="target_recall")


def test_without_a_home_case_a_threshold_is_chosen_again_and_offsets_only_where_no_recipe_rests_on_them():
    p, labels = scored(300)
    p, labels = p[np.array(labels) != "HOME"], [label for label in labels if label != "HOME"]
    rules = chosen_rules(p, labels, own_p=p, target=0.9, primary="target_recall").rules
    assert rules["target_recall"].threshold == target_recall_threshold(p[:, 0], labels, 0.9)
    assert rules["argmax"].note == "offsets not chosen again: calibration has no HOME case"
    assert rules["argmax"].decide(p) == argmax_rule(p)
    for primary in ("argmax", "min_cost"):
        with pytest.raises(BadInput, match="calibration has no HOME case"):
            record_rules(p, labels, "digest", own_p=p, target=0.9, primary=primary)
