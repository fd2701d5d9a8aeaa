from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss

from tasks.judging.score_metrics import EDGES, calibration_table, reliability_rows
from tasks.spec import LABELS


def sample(n, seed=0, sharpen=1.0):
    """Labels drawn from true probabilities, and the probabilities that a (too sharp) model gives."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 1.5
    truth = (softmax(logits, axis=1).cumsum(axis=1) > rng.random(n)[:, None]).argmax(axis=1)
    return [LABELS[i] for i in truth], softmax(logits * sharpen, axis=1)


def by_name(*args, **options):
    return {row["metric"]: SimpleNamespace(**row) for row in calibration_table(*args, **options)}


def random_probabilities(count, seed=0):
    """Labels and probabilities of many kinds: one case, one class, ties, certainty, and enough cases for an ECE."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        n = 300 if i % 12 == 0 else int(rng.choice([1, 2, 3, 7, 20, 60]))
        truth = rng.choice(rng.permutation(3)[: rng.integers(1, 4)], n)
        p = softmax(rng.normal(size=(n, 3)) * rng.choice([0.1, 2, 40]), axis=1)
        if rng.random() < 0.5:
            p = rng.dirichlet([1, 1, 1], 3)[rng.integers(0, 3, n)]  # at most three different rows
        yield truth, p


@pytest.mark.parametrize("tables", [60, pytest.param(1000, marks=pytest.mark.nightly)])
def test_brier_and_ece_equal_scikit_learn_and_a_direct_sum_on_random_tables(tables):
    eces = 0
    for truth, p in random_probabilities(tables):
        values = {name: m.value for name, m in by_name([LABELS[t] for t in truth], p, resamples=2).items()}
        whole = brier_score_loss(truth, p, labels=[0, 1, 2], scale_by_half=False)
        assert values["brier"] == pytest.approx(whole, abs=1e-12)
        of_ed = brier_score_loss(truth == 0, p[:, 0], labels=[False, True], pos_label=True)
        assert values["ed_brier"] == pytest.approx(of_ed, abs=1e-12)

        tops = {"ece": (p.max(axis=1), p.argmax(axis=1) == truth), "ed_ece": (p[:, 0], truth == 0)}
        for name, (scores, hits) in tops.items():
            edges = np.quantile(scores, np.arange(1, 10) / 10)
            bins = np.array([(edges <= score).sum() for score in scores])
            direct = sum(abs(hits[bins == b].sum() - scores[bins == b].sum()) / len(scores) for b in range(10))
            assert values[name] is None if len(truth) < 300 else values[name] == pytest.approx(direct, abs=1e-12)
            eces += values[name] is not None

    assert eces >= 0.08 * tables


def test_below_300_cases_there_is_no_ece_but_a_brier_score():
    rows = by_name(*sample(299))
    assert rows["ece"].value is None and rows["ece"].note == "not available: 299 cases, an ECE needs 300"
    assert rows["ed_ece"].value is None and rows["brier"].value > 0
    assert by_name(*sample(300), resamples=2)["ece"].value is not None
    without = by_name([], np.empty((0, 3))).values()
    assert all(m.value is None and m.note.startswith("not available") for m in without)


def test_the_interval_of_a_calibrated_model_reaches_zero_and_that_of_a_sharpened_one_does_not():
    """The plain percentile interval would exclude the truth, 0, in every one of these sets."""
    reach = sum(by_name(*sample(400, seed), resamples=200)["ece"].low == 0 for seed in range(8))
    assert reach >= 6
    for seed in range(3):
        sharp = by_name(*sample(400, seed, sharpen=4), resamples=200)
        assert 0 < sharp["ece"].low < sharp["ece"].value < sharp["ece"].high and sharp["ece"].value > 0.1
        assert sharp["ed_ece"].low < sharp["ed_ece"].value < sharp["ed_ece"].high


def test_each_metric_has_the_interval_of_its_own_values():
    """All share one set of resamples, so their columns must not be mixed up."""
    labels, p = sample(400)
    squares = (p - np.eye(3)[[LABELS.index(x) for x in labels]]) ** 2
    rows = by_name(labels, p)
    for name, values in {"brier": squares.sum(axis=1), "ed_brier": squares[:, 0]}.items():
        error = 1.96 * values.std() / 20
        normal = (values.mean() - error, values.mean() + error)
        assert (rows[name].low, rows[name].high) == pytest.approx(normal, rel=0.02)
    assert all(rows[name].high - rows[name].low < 0.12 for name in ("ece", "ed_ece"))


def test_groups_of_equal_cases_widen_the_interval():
    labels, p = sample(60, 3)
    groups = [str(i) for i in range(60) for _ in range(10)]
    many = [label for label in labels for _ in range(10)], np.repeat(p, 10, axis=0)
    clustered = by_name(*many, groups)["brier"]
    independent = by_name(*many)["brier"]
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)
    assert independent.note == "assumes independent cases" and clustered.note is None
    few = by_name(*many, [g[-1] if int(g) < 9 else "0" for g in groups])
    assert few["brier"].low is None and few["ece"].low is None and "fewer than 10 independent units" in few["ece"].note


def test_reliability_looks_closely_at_small_probabilities_and_keeps_empty_rows():
    labels = ["GP"] * 96 + ["ED"] * 4 + ["ED", "HOME"]
    rows = reliability_rows(labels, [0.004] * 100 + [1.0, 0.5])
    assert [(r["low"], r["high"]) for r in rows] == list(pairwise(EDGES))
    small = rows[1]
    last = rows[-1]
    assert (small["n"], small["mean_p_ed"], small["ed_share"]) == (100, pytest.approx(0.004), 0.04)
    assert small["share_low"] == pytest.approx(0.011, abs=1e-3)  # the model's 0.004 lies below it: too sure
    assert (last["n"], last["ed_share"]) == (2, 0.5)  # 0.5 belongs to the row that begins there, 1.0 to the last
    assert rows[0]["n"] == 0 and rows[0]["ed_share"] is None and rows[0]["share_low"] is None
    assert sum(r["n"] for r in rows) == 102
