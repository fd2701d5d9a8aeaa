import numpy as np
import pytest

from tasks.judging import intervals
from tasks.judging.intervals import percentile_interval, resample_totals
from tasks.judging.metrics import share_metric
from tasks.judging.point_metrics import MIN_UNITS


def share(totals):
    return totals[:, 0] / totals[:, 1]


def test_bootstrap_has_the_distribution_of_drawing_whole_groups_by_index():
    rng = np.random.default_rng(1)
    groups = [f"g{i}" for i in rng.integers(0, 25, 150)]
    values = np.column_stack([rng.random(150) < 0.7, np.ones(150)]).astype(float)
    names = sorted(set(groups))
    members = {name: [i for i, g in enumerate(groups) if g == name] for name in names}

    naive = []
    for _ in range(2000):
        picked = np.concatenate([members[name] for name in rng.choice(names, len(names))]).astype(int)
        naive.append(values[picked, 0].mean())

    resampled_shares = share(resample_totals(values, groups=groups, seed=0, resamples=10_000))
    assert np.quantile(resampled_shares, [0.025, 0.5, 0.975]) == pytest.approx(
        np.quantile(naive, [0.025, 0.5, 0.975]), abs=0.015
    )


def test_neither_the_order_of_cases_nor_the_names_of_groups_matter_and_a_case_without_one_is_a_group_of_its_own():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 20, 100)
    values = np.column_stack([rng.integers(0, 2, 100), np.ones(100)])
    shuffle = rng.permutation(100)
    one = resample_totals(values, groups=[f"g{c}" for c in codes], seed=5)
    other = resample_totals(values[shuffle], groups=[f"x{99 - codes[i]}" for i in shuffle], seed=5)
    assert (one == other).all()
    assert (one != resample_totals(values, groups=[f"g{c}" for c in codes], seed=6)).any()

    mixed, named = (
        resample_totals(np.arange(12.0)[:, None], groups=["a", "a", *others], seed=0, resamples=10)
        for others in ([None] * 10, map(str, range(10)))
    )
    assert (mixed == named).all()


def test_strata_keep_their_sizes_and_without_strata_or_groups_cases_are_drawn_freely():
    values = np.eye(2)[np.repeat([0, 1], [30, 70])]
    assert (resample_totals(values, groups=None, strata=values[:, 1], seed=0, resamples=50) == [30, 70]).all()
    totals = resample_totals(values, groups=None, seed=0, resamples=50)
    assert len(set(totals[:, 0])) > 5 and (totals.sum(axis=1) == 100).all()


def test_work_in_blocks_gives_the_same_numbers(monkeypatch):
    values = np.random.default_rng(3).random((40, 2))
    whole = resample_totals(values, groups=None, seed=0, resamples=101)
    monkeypatch.setattr(intervals, "BLOCK", 40 * 7)
    # Not to the last bit: how a product sums depends on its shape, and on the processor.
    np.testing.assert_allclose(resample_totals(values, groups=None, seed=0, resamples=101), whole, rtol=1e-13)


def test_too_few_groups_give_no_interval_rather_than_a_sure_one():
    few, enough = (
        share_metric("hits", np.ones(200), [str(i % groups) for i in range(200)], seed=0)
        for groups in (MIN_UNITS - 1, MIN_UNITS)
    )
    assert few["clustered_low"] is few["clustered_high"] is None
    assert (enough["clustered_low"], enough["clustered_high"]) == (1.0, 1.0)


def test_a_statistic_that_is_often_undefined_gives_no_interval():
    assert percentile_interval([np.nan] * 6 + [0.5] * 94) is None
    assert percentile_interval([np.nan] * 5 + [0.5] * 95) == (0.5, 0.5)
    assert percentile_interval([]) is None
