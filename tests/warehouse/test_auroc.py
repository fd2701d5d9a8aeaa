"""The AUROC as ratios of totals: its value is scikit-learn's, its error DeLong's and, by group, Obuchowski's."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.judging.point_metrics import ED_AUROC, placements
from warehouse.comparison.cells import JudgedCases
from warehouse.comparison.joint import Statistic, joint_bands
from warehouse.comparison.paired import PairedDecisions, compare_auroc


def scored(seed: int, groups: int = 60, size: int = 8, models: int = 2) -> JudgedCases:
    """Groups that are harder for all models or for one; probabilities on a grid, so that some are equal."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(groups), size)
    usual = rng.random(groups)[unit] < 0.3
    truth = np.where(rng.random(groups * size) < 0.8, ~usual, rng.random(groups * size) < 0.5).astype(np.int64)
    shared = rng.normal(size=groups)[unit] + rng.normal(size=groups * size)
    logits = [
        1.5 * (truth == 0) + shared + 0.5 * rng.normal(size=groups)[unit] + rng.normal(size=groups * size)
        for _ in range(models)
    ]
    p_ed = np.round(1 / (1 + np.exp(-np.concatenate(logits))), 2)
    decided = np.where(p_ed > 0.5, 0, 1)
    return JudgedCases(
        np.repeat(np.arange(models), len(unit)), np.tile(unit, models), np.tile(truth, models),
        {"argmax": decided, "primary": decided}, p_ed, True, models,
    )  # fmt: skip


def alone(cases: JudgedCases, model: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (is ED), probability and unit of one model."""
    rows = cases.model == model
    return cases.truth[rows] == 0, cases.p_ed[rows], cases.unit[rows]


def difference(cases: JudgedCases) -> Statistic:
    numerators, denominators = cases.cells("argmax").ratios(ED_AUROC)
    signs = np.repeat([1.0, -1.0], numerators.shape[2])
    return Statistic.mean_of(numerators.reshape(len(numerators), -1), denominators.reshape(len(numerators), -1), signs)


def obuchowski(cases: JudgedCases) -> float:
    """Standard error of the difference of two AUROCs over groups, from the formulas of the paper (sections 2 and 3)."""
    sums = []
    for model in (0, 1):
        positive, p, unit = alone(cases, model)
        above = (p[positive][:, None] > p[~positive]) + 0.5 * (p[positive][:, None] == p[~positive])
        area = above.mean()
        ten = np.bincount(unit[positive], above.mean(axis=1) - area, cases.units)
        one = np.bincount(unit[~positive], above.mean(axis=0) - area, cases.units)
        sums.append((ten / positive.sum(), one / (~positive).sum()))

    ten = sums[0][0] - sums[1][0]
    one = sums[0][1] - sums[1][1]
    few = cases.units / (cases.units - 1)
    return float(np.sqrt(few * ((ten**2).sum() + (one**2).sum() + 2 * (ten * one).sum())))


def test_the_value_is_that_of_scikit_learn_and_the_error_that_of_obuchowski():
    cases = scored(2)
    positive, p, _ = alone(cases, 0)
    for kind in (positive, ~positive):
        assert placements(p, positive)[kind].mean() == pytest.approx(roc_auc_score(positive, p), abs=1e-12)
    assert np.isnan(placements(p, np.ones_like(positive))).all(), "no case of the other kind"

    numerators, denominators = cases.cells("argmax").ratios(ED_AUROC)
    values = (numerators.sum(axis=0) / denominators.sum(axis=0)).sum(axis=-1)
    assert values == pytest.approx([roc_auc_score(*alone(cases, model)[:2]) for model in (0, 1)], abs=1e-12)

    (band,) = joint_bands([difference(cases)], [None])
    assert band.value == pytest.approx(values[0] - values[1], abs=1e-12)
    assert band.error == pytest.approx(obuchowski(cases), rel=1e-9)
    assert cases.cells("primary").placed is None, "a rule does not change it"


@pytest.mark.parametrize("p_ed", ["equal on both sides", "perfect on both sides"])
def test_an_auroc_that_cannot_differ_has_no_band_and_leaves_those_of_the_others_alone(p_ed):
    """Rounding must not make a difference of zero, divided by an error of nearly zero, widen every band."""
    cases = scored(5)
    if p_ed == "equal on both sides":
        probabilities = np.tile(cases.p_ed[cases.model == 0], 2)
    else:
        probabilities = np.where(cases.truth == 0, 0.9, 0.1)

    accuracy = cases.cells("argmax")
    numerators, denominators = accuracy.ratios("accuracy")
    signs = np.array([1.0, -1.0])
    others = Statistic.mean_of(numerators[..., 0], denominators[..., 0], signs)
    (alone_band,) = joint_bands([others], [None])
    assert alone_band.low < alone_band.value < alone_band.high

    joint_band, none = joint_bands([others, difference(replace(cases, p_ed=probabilities))], [None, None])
    assert joint_band == alone_band
    assert (none.value, none.low) == (pytest.approx(0, abs=1e-12), None)


@pytest.mark.nightly
def test_bands_hold_the_true_difference_in_as_many_studies_as_they_say():
    """Both models are equally good, so that 0 is the true difference."""
    coverage = []
    for seed in range(400):
        (band,) = joint_bands([difference(scored(seed, groups=60))], [None], resamples=500)
        coverage.append(band.low <= 0 <= band.high)
    assert 0.92 <= np.mean(coverage) <= 0.98


def test_a_pair_alone_has_the_same_difference_and_nearly_the_same_interval():
    """A percentile interval of resampled placements, beside the normal one of Obuchowski's error."""
    cases = scored(6)
    positive, _, unit = alone(cases, 0)
    p_ed = np.stack([alone(cases, model)[1] for model in (0, 1)], axis=1)
    truth = np.where(positive, 0, 1)
    pair = compare_auroc(PairedDecisions(truth, truth, truth, unit, grouped=True), p_ed)
    areas = [roc_auc_score(positive, p_ed[:, side]) for side in (0, 1)]
    assert (pair.value_4bit, pair.value_8bit) == pytest.approx(areas, abs=1e-12)
    assert pair.difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    half = 1.96 * obuchowski(cases)
    assert (pair.low, pair.high) == pytest.approx((pair.difference - half, pair.difference + half), abs=0.1 * half)
    assert (pair.n, pair.groups, pair.margin) == (len(truth), 60, 0.02)


@pytest.mark.parametrize(
    ("truth", "groups", "note"),
    [
        # Most groups hold emergencies alone, and nine of them another case.
        (
            np.where((np.arange(300) % 5 == 0) & (np.arange(300) < 45), 1, 0), 60,
            "no bootstrap: 9 groups of the rarer kind are too few (it needs 10)",
        ),
        (np.full(40, 0), None, "not available: no case but ED in the set"),
        (np.full(40, 1), None, "not available: no ED case in the set"),
    ],
)  # fmt: skip
def test_few_groups_of_the_rarer_kind_or_one_kind_alone_conclude_nothing(truth, groups, note):
    unit = np.arange(len(truth)) // (len(truth) // groups if groups else 1)
    pair = PairedDecisions(truth, truth, truth, unit, grouped=bool(groups))
    figure = compare_auroc(pair, np.random.default_rng(0).random((len(truth), 2)))
    assert (figure.low, figure.difference is None, figure.note) == (None, groups is None, note)
