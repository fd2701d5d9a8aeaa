"""Verdicts of many studies at once are those that `compare` gives to each."""

from collections import Counter
from functools import cache

import numpy as np
import pytest

from tasks.judging.study_draws import PairedCounts
from warehouse.comparison.paired import PairedDecisions, compare
from warehouse.comparison.resampling import CANNOT_CONCLUDE, INFERIOR, NOT_INFERIOR
from warehouse.comparison.verdicts import verdict_shares

METRICS = ("accuracy", "ed_recall", "macro_f1")


def study(seed: int, groups: int, size: int, grouped: bool = True) -> PairedDecisions:
    """A study whose two models differ more with the seed, in either direction."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, groups * size, p=[0.25, 0.4, 0.35])
    sides = []
    for error in (0.02 + 0.03 * (seed % 4), 0.02 + 0.02 * (seed % 5)):
        sides.append(np.where(rng.random(len(truth)) < error, rng.integers(0, 3, len(truth)), truth))
    unit = np.arange(len(truth)) // size
    return PairedDecisions(truth, *sides, unit, grouped)


def cells(one: PairedDecisions) -> np.ndarray:
    units = [str(unit) for unit in one.unit]
    return PairedCounts.of(one.truth, one.at_4bit, one.at_8bit, units, one.grouped).counts


@cache
def studies(number: int, groups: int, size: int, grouped: bool = True) -> tuple[PairedDecisions, ...]:
    return tuple(study(seed, groups, size, grouped) for seed in range(number))


@cache
def one_by_one(number: int, groups: int, size: int, grouped: bool = True) -> dict[str, dict[str, float]]:
    """The share of each verdict of these studies, by metric."""
    verdicts = Counter(
        (comparison.metric, comparison.verdict or CANNOT_CONCLUDE)
        for one in studies(number, groups, size, grouped)
        for comparison in compare(one, None)
    )
    every = (NOT_INFERIOR, INFERIOR, CANNOT_CONCLUDE)
    return {metric: {verdict: verdicts[metric, verdict] / number for verdict in every} for metric in METRICS}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("groups", "size"), [(63, 24), (30, 60), (12, 4), (10, 40), (9, 80)])
def test_shares_are_those_of_compare_one_study_after_the_other(metric, groups, size):
    counts = np.stack([cells(one) for one in studies(40, groups, size)])
    shares = verdict_shares(metric, counts, grouped=True)
    expected = one_by_one(40, groups, size)[metric]
    assert (shares.not_inferior, shares.inferior) == (expected[NOT_INFERIOR], expected[INFERIOR])
    if groups >= 30:
        assert len([share for share in expected.values() if share]) == 3 or metric == "ed_recall"
    if groups < 10:
        assert shares.cannot_conclude == 1, "fewer than ten groups conclude nothing"


@pytest.mark.parametrize("metric", METRICS)
def test_without_groups_the_shares_agree_but_for_the_draws(metric):
    totals = np.stack([cells(one).sum(axis=0, keepdims=True) for one in studies(60, 400, 1, False)])
    shares = verdict_shares(metric, totals, grouped=False)
    expected = one_by_one(60, 400, 1, False)[metric]
    assert shares.not_inferior == pytest.approx(expected[NOT_INFERIOR], abs=0.04)
    assert shares.inferior == pytest.approx(expected[INFERIOR], abs=0.04)


def test_a_set_without_emergencies_concludes_nothing_about_them():
    counts = np.stack([cells(one) for one in studies(5, 30, 10)])
    counts[..., :9] = 0
    assert verdict_shares("ed_recall", counts, grouped=True).cannot_conclude == 1
    assert verdict_shares("ed_recall", counts.sum(axis=1, keepdims=True), grouped=False).cannot_conclude == 1
    assert verdict_shares("macro_f1", counts, grouped=True).cannot_conclude < 1
