"""Studies drawn before a pair is measured: clustering against SciPy, draws and shifts against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f_oneway

from tasks.judging.point_metrics import accuracy, macro_f1
from tasks.judging.study_draws import (
    ASSUMED_DISCORDANCE,
    CELLS,
    GAIN,
    Behaviour,
    PairedCounts,
    PlannedSet,
    assumed_shares,
    difference_of,
    draw_studies,
    intraclass_correlation,
    shift_to,
    shifted,
    value_sums,
)

METRICS = {"accuracy": accuracy, "macro_f1": macro_f1}


def pair(groups: int = 40, size: int = 12, seed: int = 0, differ: float = 0.12) -> PairedCounts:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, groups * size)
    easy = np.repeat(rng.random(groups), size) > 0.3
    eight = np.where(easy | (rng.random(len(truth)) < 0.5), truth, (truth + 1) % 3)
    changed = rng.random(len(truth)) < differ
    four = np.where(changed, rng.integers(0, 3, len(truth)), eight)
    return PairedCounts.of(truth, four, eight, [f"g{i // size}" for i in range(len(truth))], True)


def planned(stored: PairedCounts) -> PlannedSet:
    return PlannedSet(stored.by_class.sum(-1), stored.names, True)


@pytest.mark.parametrize("seed", range(5))
def test_the_intraclass_correlation_is_that_of_an_analysis_of_variance(seed):
    rng = np.random.default_rng(seed)
    groups = [rng.integers(-1, 2, rng.integers(1, 9)) + rng.integers(0, 2) for _ in range(20)]
    n = np.array([len(group) for group in groups])
    f = f_oneway(*groups).statistic
    usual = (n.sum() - (n**2).sum() / n.sum()) / (len(n) - 1)
    sums = [np.array([(group**power).sum() for group in groups], float) for power in (1, 2)]
    assert intraclass_correlation(n.astype(float), *sums) == pytest.approx((f - 1) / (f - 1 + usual))


def test_groups_of_one_case_say_nothing_about_clustering_and_equal_values_neither():
    ones = np.ones(50)
    assert intraclass_correlation(ones, ones, ones) is None
    assert intraclass_correlation(3 * ones, 3 * ones, 3 * ones) is None


def test_a_study_as_large_as_the_stored_pair_draws_its_groups_as_they_are():
    stored = pair()
    studies = draw_studies(Behaviour.of(stored), planned(stored), 20, seed=1)
    rows = {row.tobytes() for row in stored.counts}
    assert studies.shape == (20, 40, CELLS)
    assert all(row.tobytes() in rows for study in studies for row in study)
    assert len({study.tobytes() for study in studies}) == 20
    assert (studies == draw_studies(Behaviour.of(stored), planned(stored), 20, seed=1)).all()


def test_fewer_cases_are_a_sample_of_a_group_and_more_cases_keep_those_that_it_has():
    stored = pair()
    sizes = stored.by_class.sum(-1)
    by_name = dict(zip(stored.names, stored.counts, strict=True))

    for cases in (sizes // 2, sizes + 5):
        one = PlannedSet(cases[:1], stored.names[:1], True)
        studies = draw_studies(Behaviour.of(stored), one, 30, seed=2)
        assert (studies.reshape(30, 3, 9).sum(-1) == cases[0]).all()
        less, more = (studies[:, 0], by_name["g0"]) if (cases < sizes).any() else (by_name["g0"], studies[:, 0])
        assert (less <= more).all()


def test_further_cases_of_groups_agree_as_much_as_is_assumed():
    behaviour = Behaviour(assumed_shares(), np.full(3, 0.3), None)
    sizes = PlannedSet(np.tile([0, 20, 0], (300, 1)), tuple(map(str, range(300))), True)
    studies = draw_studies(behaviour, sizes, 10, seed=3)
    matches = [intraclass_correlation(*value_sums(study.astype(float), GAIN.astype(float))) for study in studies]
    assert np.mean(matches) == pytest.approx(0.3, abs=0.03)
    assert (np.abs(GAIN) * studies).sum() / studies.sum() == pytest.approx(ASSUMED_DISCORDANCE, abs=0.01)


def test_what_a_stored_pair_cannot_tell_is_assumed():
    alone = pair(groups=60, size=1)
    assert Behaviour.of(alone).assumed == (0, 1, 2) and (Behaviour.of(alone).clustering == 0.05).all()
    assert Behaviour.of(pair()).assumed == ()
    truth = np.ones(40, dtype=np.int64)
    without_ed = PairedCounts.of(truth, truth, truth, [f"g{i // 4}" for i in range(40)], True)
    assert np.allclose(Behaviour.of(without_ed).shares[0], assumed_shares()[0])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("difference", [-0.05, -0.02, 0.0, 0.03])
def test_a_shift_gives_the_true_difference_at_the_same_discordance(metric, difference):
    stored = pair(groups=200)
    cells = stored.counts.sum(axis=0).astype(float)
    kernel = shift_to(difference, cells, METRICS[metric], (0, 1, 2))
    assert np.allclose(kernel.sum(axis=1), 1) and (kernel >= 0).all()
    assert difference_of(cells @ kernel, METRICS[metric]) == pytest.approx(difference, abs=1e-6)
    assert (cells @ kernel)[GAIN != 0].sum() == pytest.approx(cells[GAIN != 0].sum())

    changed = shifted(np.tile(stored.counts, (50, 1, 1)), kernel, np.random.default_rng(4))
    assert (changed >= 0).all() and (
        changed.reshape(-1, 3, 9).sum(-1) == np.tile(stored.by_class.sum(-1), (50, 1))
    ).all()
    assert np.allclose(changed.sum((0, 1)) / 50, cells @ kernel, atol=4)


def test_ed_alone_is_changed_where_the_metric_is_about_ed_and_no_difference_is_larger_than_all_cases():
    cells = pair().counts.sum(axis=0).astype(float)
    kernel = shift_to(-0.03, cells, lambda tables: tables[..., 0, 0] / tables[..., 0, :].sum(-1), (0,))
    assert (kernel[9:, 9:] == np.eye(18)).all() and not (kernel[:9, :9] == np.eye(9)).all()
    assert shift_to(-1.5, cells, accuracy, (0, 1, 2)) is None
