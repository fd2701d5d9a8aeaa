"""AUROC, average precision, calibration slope and intercept, net benefit: scikit-learn, statsmodels or by hand, to 1e-9."""

from types import SimpleNamespace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import brentq
from scipy.special import expit, softmax
from sklearn.metrics import average_precision_score, roc_auc_score
from statsmodels.tools.sm_exceptions import PerfectSeparationError

from tasks.judging.intervals import UnitDraws
from tasks.judging.score_metrics import (
    SCORE_METRICS,
    THRESHOLDS,
    ClassScores,
    decision_curve,
    logits,
    net_benefits,
    ranking,
    recalibration,
    score_metrics,
    why_not_fitted,
)

NEAR = 1e-9


def random_scores(count, seed=0):
    """Scores, classes and units of many kinds: few cases, one class, ties, all scores equal, groups."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        cases = int(rng.choice([2, 3, 7, 20, 60, 200]))
        scores = rng.random(cases) ** rng.choice([1, 8])
        if i % 3 == 0:
            scores = np.round(scores, int(rng.integers(0, 3)))
        positive = (rng.random(cases) < rng.choice([0.1, 0.5, scores.mean()])).astype(np.int64)
        units = int(rng.integers(1, cases + 1))
        yield scores, positive, np.arange(cases) % units, units, rng


def test_auroc_and_average_precision_equal_scikit_learn_in_the_set_and_in_every_resample():
    compared = undefined = 0
    for scores, positive, unit, units, rng in random_scores(40):
        counts = np.column_stack([np.ones(units), rng.multinomial(units, [1 / units] * units, 3).T]).astype(float)
        if not positive.any():
            continue

        resampled = ranking(scores, positive, unit, units)(counts)
        for column, areas in zip(counts.T, resampled.T, strict=True):
            weights = column[unit]
            drawn = weights > 0
            if len(set(positive[drawn])) < 2:
                assert np.isnan(areas).all()
                undefined += 1
                continue

            cases = {"y_true": positive[drawn], "y_score": scores[drawn], "sample_weight": weights[drawn]}
            assert areas == pytest.approx([roc_auc_score(**cases), average_precision_score(**cases)], abs=NEAR)
            compared += 1

    assert compared > 80 and undefined > 4


def fit(outcome, x=None, offset=None, weights=None):
    design = np.ones(len(outcome)) if x is None else sm.add_constant(x)
    model = sm.GLM(outcome, design, sm.families.Binomial(), offset=offset, freq_weights=weights)
    return model.fit(tol=1e-14, maxiter=200)


def test_calibration_slope_and_intercept_equal_statsmodels():
    fitted = 0
    for scores, positive, unit, units, _ in random_scores(120, seed=1):
        x = logits(np.clip(scores, 1e-3, 1 - 1e-3))  # further out the likelihood is flat
        if len(set(positive)) < 2 or why_not_fitted(x, positive):
            continue

        slope, intercept = recalibration(x, positive, unit, units)(np.ones((units, 1)))[:, 0]
        try:
            line = fit(positive, x).params
        except (np.linalg.LinAlgError, PerfectSeparationError):
            continue

        assert slope == pytest.approx(line[1], rel=1e-7, abs=NEAR)
        # The root of the score: iterated least squares, as statsmodels has it, diverges from many starts.
        score = brentq(lambda a: (positive - expit(a + x)).sum(), -60, 60, xtol=1e-13)  # noqa: B023
        assert intercept == pytest.approx(score, rel=1e-7, abs=NEAR)
        fitted += 1

    assert fitted > 45


def test_a_resample_moves_one_newton_step_and_comes_near_a_full_fit():
    rng = np.random.default_rng(2)
    x = rng.normal(size=400)
    positive = (rng.random(400) < expit(0.3 + 0.7 * x)).astype(np.int64)
    unit = np.arange(400) % 50
    counts = rng.multinomial(50, [1 / 50] * 50, 6).T.astype(float)
    resampled = recalibration(x, positive, unit, 50)(counts)
    start = fit(positive, x).params
    alone = fit(positive, offset=x).params
    of_set = recalibration(x, positive, unit, 50)(np.ones((50, 1)))[:, 0]
    assert of_set == pytest.approx([start[1], alone[0]], abs=NEAR)

    for column, (slope, intercept) in zip(counts.T, resampled.T, strict=True):
        weights = column[unit]
        steps = []
        for design, at, offset in ((sm.add_constant(x), start, 0), (np.ones((400, 1)), alone, x)):
            mean = expit(design @ at + offset)
            information = (design * (weights * mean * (1 - mean))[:, None]).T @ design
            steps.append(at + np.linalg.solve(information, design.T @ (weights * (positive - mean))))
        assert slope == pytest.approx(steps[0][1], abs=NEAR) and intercept == pytest.approx(steps[1][0], abs=NEAR)
        assert slope == pytest.approx(fit(positive, x, weights=weights).params[1], abs=0.03)


def sample(cases, groups=None, seed=0, slope=1.0):
    """Truth drawn from true probabilities, and the probabilities of a model that is `1 / slope` times too sure."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(cases, 3)) * 1.2
    true = softmax(spread, axis=1)
    truth = (true.cumsum(axis=1) > rng.random(cases)[:, None]).argmax(axis=1)
    return softmax(spread / slope, axis=1), truth, None if groups is None else [f"g{i % groups}" for i in range(cases)]


def by_name(p, truth, groups=None, rows=None, least=1, label="ED"):
    draws = UnitDraws.of(np.column_stack([p, truth]), groups, seed=3)
    part = ClassScores(label, p, truth, np.arange(len(truth)) if rows is None else rows, least)
    ((*metrics,),), _ = score_metrics([part], draws, lambda counts: counts[:1])
    return {row["metric"]: SimpleNamespace(**row) for row in metrics}


def test_intervals_are_the_percentiles_of_scikit_learn_over_the_same_resamples():
    p, truth, groups = sample(300, groups=30)
    draws = UnitDraws.of(np.column_stack([p, truth]), groups, seed=3)
    (counts,) = draws.resampled([lambda counts: counts])
    is_gp = (truth == 1).astype(int)
    weights = counts.T[:, draws.unit]
    metrics = by_name(p, truth, groups, label="GP")

    for name, score in {"gp_auroc": roc_auc_score, "gp_average_precision": average_precision_score}.items():
        assert metrics[name].value == pytest.approx(score(is_gp, p[:, 1]), abs=NEAR)
        by_hand = [score(is_gp, p[:, 1], sample_weight=drawn) for drawn in weights[:50]]
        few = ranking(p[:, 1], is_gp, draws.unit, 30)(counts[:, :50])[list(metrics).index(name)]
        assert few == pytest.approx(np.array(by_hand), abs=NEAR)
        assert metrics[name].method.startswith("bootstrap clustered") and metrics[name].note is None
        assert metrics[name].low < metrics[name].value < metrics[name].high


def test_slopes_tell_a_model_that_is_too_sure_from_one_that_is_not():
    honest, sure = (by_name(*sample(1500, seed=4, slope=slope)) for slope in (1.0, 0.5))
    for name, true in (("ed_calibration_slope", 1), ("ed_calibration_intercept", 0)):
        assert honest[name].low < true < honest[name].high
    assert sure["ed_calibration_slope"].high < 0.8 and honest["ed_auroc"].note == "assumes independent cases"


def test_an_absent_class_is_not_available_for_a_reason_and_few_units_have_no_interval():
    p, truth, _ = sample(60)
    for mask, reason in ((truth != 0, "no ED case in this set"), (truth == 0, "no non-ED case in this set")):
        metrics = by_name(p[mask], truth[mask])
        assert list(metrics) == [f"ed_{name}" for name in SCORE_METRICS]
        assert {m.note for m in metrics.values()} == {f"not available: {reason}"} and metrics["ed_auroc"].value is None

    rows = [*np.flatnonzero(truth == 0)[:9], *np.flatnonzero(truth)[:20]]
    few = by_name(p, truth, rows=rows, least=10)["ed_auroc"]
    assert few.note == "not available: 9 ED cases of this subgroup are too few (it needs 10)"
    clustered = by_name(p, truth, [f"g{i % 9}" for i in range(60)])["ed_auroc"]
    assert clustered.value is not None and clustered.low is None
    assert clustered.note == "no interval: 9 groups are too few for a bootstrap (it needs 10)"


def test_one_probability_for_all_cases_ranks_nothing_and_without_overlap_there_is_no_slope():
    _, truth, _ = sample(90)
    same = by_name(np.tile([0.2, 0.3, 0.5], (90, 1)), truth)
    assert same["ed_auroc"].value == 0.5 and same["ed_average_precision"].value == pytest.approx((truth == 0).mean())
    assert same["ed_calibration_slope"].value is None
    assert "every case has the same probability" in same["ed_calibration_slope"].note
    perfect = by_name(np.eye(3)[truth], truth)
    assert perfect["ed_auroc"].value == 1 and perfect["ed_calibration_intercept"].value is None
    assert "without overlap" in perfect["ed_calibration_intercept"].note
    touching = np.array([-1.0, 0.0, 0.0, 1.0])
    for positive in ([0, 0, 1, 1], [1, 1, 0, 0]):
        assert "without overlap" in why_not_fitted(touching, np.array(positive))
    assert why_not_fitted(touching, np.array([0, 1, 0, 0])) is None


def curve_of(p_ed, is_ed, groups=None):
    draws = UnitDraws.of(np.column_stack([p_ed, is_ed]), groups, seed=5)
    curve = decision_curve(p_ed, is_ed, draws)
    (resampled,) = draws.resampled([curve])
    return net_benefits(curve, resampled, draws), resampled, draws


def test_net_benefit_equals_counts_by_hand_in_the_set_and_in_every_resample():
    for p_ed, is_ed, unit, units, _ in random_scores(30, seed=6):
        groups = [f"g{u}" for u in unit] if units < len(unit) else None
        rows, resampled, draws = curve_of(p_ed, is_ed, groups)
        (counts,) = draws.resampled([lambda counts: counts])
        of_set = np.array([[row[name] for row in rows] for name in ("net_benefit", "over_always_ed")]).ravel()
        assert [row["always_ed"] + row["over_always_ed"] for row in rows] == pytest.approx(
            of_set[: len(rows)], abs=NEAR
        )
        for weights, values in ((np.ones(len(p_ed)), of_set), (counts[draws.unit, 7], resampled[:, 7])):
            for i, t in enumerate(THRESHOLDS):
                sent = p_ed >= t
                caught = weights[sent & (is_ed == 1)].sum()
                alarms = weights[sent & (is_ed == 0)].sum()
                benefit = (caught - alarms * t / (1 - t)) / weights.sum()
                everybody = (weights @ is_ed - weights @ (1 - is_ed) * t / (1 - t)) / weights.sum()
                own_value = values[[i, len(THRESHOLDS) + i]]
                assert tuple(own_value) == pytest.approx((benefit, benefit - everybody), abs=NEAR)


def test_net_benefit_is_above_both_answers_for_a_good_model_and_its_intervals_are_paired():
    p, truth, groups = sample(900, groups=60)
    rows, resampled, _ = curve_of(p[:, 0], (truth == 0).astype(np.int64), groups)
    for i, row in enumerate(rows):
        ends = np.quantile(resampled[[i, len(rows) + i]], [0.025, 0.975], axis=1).T
        assert (row["low"], row["high"]) == pytest.approx(tuple(ends[0]), abs=NEAR)
        assert (row["over_always_ed_low"], row["over_always_ed_high"]) == pytest.approx(tuple(ends[1]), abs=NEAR)
        assert row["n"] == 900 and row["method"].startswith("bootstrap clustered") and row["note"] is None

    half = next(row for row in rows if row["threshold"] == 0.3)
    assert half["low"] > 0 and half["over_always_ed_low"] > 0
    few, _, _ = curve_of(p[:9, 0], (truth[:9] == 0).astype(np.int64))
    assert few[0]["low"] is None and few[0]["note"] == "no interval: 9 cases are too few for a bootstrap (it needs 10)"


def test_neither_the_order_of_cases_nor_the_names_of_groups_nor_the_blocks_change_a_resample(monkeypatch):
    p, truth, groups = sample(200, groups=20)
    order = np.random.default_rng(0).permutation(200)
    renamed = [f"z{(int(g[1:]) * 7) % 20}" for g in groups]
    first = by_name(p, truth, groups)
    shuffled = by_name(p[order], truth[order], [renamed[i] for i in order])
    monkeypatch.setattr("tasks.judging.intervals.UNIT_BLOCK", 1000)
    for others in (shuffled, by_name(p, truth, groups)):
        for name, metric in first.items():
            ends = (others[name].value, others[name].low, others[name].high)
            assert (metric.value, metric.low, metric.high) == pytest.approx(ends, abs=NEAR)


def test_a_unit_is_drawn_as_often_as_chance_would_have_it():
    draws = UnitDraws.of(np.arange(50.0)[:, None], None, seed=1)
    (counts,) = draws.resampled([lambda counts: counts])
    assert counts.shape == (50, 2000) and (counts.sum(axis=0) == 50).all()
    assert counts.mean(axis=1) == pytest.approx(np.ones(50), abs=0.12)
    assert counts.var(axis=1).mean() == pytest.approx(49 / 50, abs=0.03)
