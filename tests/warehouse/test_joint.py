"""Joint bands: against a computation by loops, statsmodels' clustered errors, and 1,000 simulated studies."""

import numpy as np
import pytest
import statsmodels.api as sm

from tasks.judging.point_metrics import metric_values
from warehouse.comparison.cells import POOLED, Cells
from warehouse.comparison.joint import LEAST_ERROR, LEVEL, Hypothesis, Statistic, joint_bands
from warehouse.comparison.resampling import resample_weights

SIGNS = np.array([1.0, -1.0])


def population(units: int, size: int, pairs: int, seed: int = 0, loss: float = 0.05) -> Cells:
    """Confusion tables of `units` groups of cases under pairs of models that share cases and difficulty; the first of
    each pair loses a little."""
    rng = np.random.default_rng(seed)
    usual = rng.choice(3, p=[0.25, 0.4, 0.35], size=(units, 1))
    truth = np.where(rng.random((units, size)) < 0.8, usual, rng.choice(3, size=(units, size)))
    hard = rng.normal(size=(units, 1))
    shared = rng.normal(size=(units, size))
    counts = np.zeros((units, 2 * pairs, 3, 3))

    for model in range(2 * pairs):
        own_values = 0.3 * rng.normal(size=(units, 1)) + 0.6 * rng.normal(size=(units, size))
        skill = 0.9 + 0.6 * hard + 0.8 * shared + own_values - (loss if model % 2 == 0 else 0)
        decided = np.where(skill > 0, truth, rng.choice(3, size=(units, size)))
        for case in range(size):
            np.add.at(counts, (np.arange(units), model, truth[:, case], decided[:, case]), 1)

    return Cells(counts)


def statistics(cells: Cells, scopes: list[np.ndarray]) -> list[Statistic]:
    """Every pooled metric under weights of the models."""
    pooled_statistics = []
    for metric in POOLED:
        numerators, denominators = (side.reshape(len(side), -1) for side in cells.ratios(metric))
        ratios = numerators.shape[1] // cells.counts.shape[1]
        pooled_statistics += [Statistic.mean_of(numerators, denominators, np.repeat(scope, ratios)) for scope in scopes]
    return pooled_statistics


def scopes(pairs: int) -> list[np.ndarray]:
    """All pairs, and the first alone."""
    return [np.tile(SIGNS, pairs) / pairs, np.concatenate([SIGNS, np.zeros(2 * pairs - 2)])]


def values_by_formula(counts: np.ndarray, weights: np.ndarray, scope: np.ndarray) -> list[float]:
    """The pooled metrics from the formulas of tasks/judging, for the totals under `weights`."""
    tables = (weights[:, None, None, None] * counts).sum(axis=0)
    figures = metric_values(tables)
    return [float((figures[metric] * scope).sum()) for metric in POOLED]


def error_by_differences(counts: np.ndarray, weights: np.ndarray, scope: np.ndarray, metric: int) -> float:
    """The linearised standard error with influences found by moving the weight of each unit a little."""
    step = 1e-5
    influences = []
    for unit in range(len(counts)):
        up = weights.copy()
        down = weights.copy()
        up[unit] = up[unit] + step
        down[unit] = down[unit] - step
        both = [values_by_formula(counts, one, scope)[metric] for one in (up, down)]
        influences.append((both[0] - both[1]) / (2 * step))

    squares = (weights * np.array(influences) ** 2).sum() * len(counts) / (len(counts) - 1)
    return float(np.sqrt(squares))


def test_metrics_as_ratios_equal_their_formulas():
    cells = population(40, 4, 2)
    totals = cells.counts.sum(axis=0)
    for metric in POOLED:
        numerators, denominators = cells.ratios(metric)
        as_ratios = (numerators.sum(axis=0) / denominators.sum(axis=0)).sum(axis=-1)
        assert as_ratios == pytest.approx(metric_values(totals)[metric], abs=1e-12)


def test_values_errors_bands_and_p_values_equal_a_computation_by_loops():
    cells = population(20, 6, 2, seed=3)
    resamples = 100
    margin = 0.02
    scope = scopes(2)[0]
    figures = statistics(cells, [scope])
    signs = [1, 1, 1, 1, -1]
    bands = joint_bands(figures, [Hypothesis(sign, margin) for sign in signs], resamples)

    unit_weights = np.ones(20)
    values = values_by_formula(cells.counts, unit_weights, scope)
    errors = [error_by_differences(cells.counts, unit_weights, scope, k) for k in range(len(POOLED))]
    (weights,) = resample_weights(20, resamples)
    scaled = np.empty((resamples, len(POOLED)))

    for b in range(resamples):
        drawn = values_by_formula(cells.counts, weights[b], scope)
        for k in range(len(POOLED)):
            error = error_by_differences(cells.counts, weights[b], scope, k)
            scaled[b, k] = (drawn[k] - values[k]) / max(error, LEAST_ERROR * errors[k])

    quantile = sorted(np.abs(scaled).max(axis=1))[int(np.ceil((resamples + 1) * LEVEL)) - 1]
    greatest = (scaled * signs).max(axis=1)

    assert [band.value for band in bands] == pytest.approx(values, abs=1e-9)
    assert [band.error for band in bands] == pytest.approx(errors, abs=1e-9)

    for k, band in enumerate(bands):
        assert (band.low, band.high) == pytest.approx(
            (values[k] - quantile * errors[k], values[k] + quantile * errors[k]), abs=1e-9
        )
        reached = (signs[k] * values[k] + margin) / errors[k]
        assert band.p_value == pytest.approx((1 + (greatest >= reached).sum()) / (resamples + 1), abs=1e-9)


def test_the_error_of_a_mean_difference_is_the_clustered_one_of_statsmodels():
    cells = population(60, 5, 3, seed=5)
    (scope, _) = scopes(3)
    correct = cells.counts.trace(axis1=2, axis2=3)
    truth = cells.counts.sum(axis=(2, 3))[:, 0]
    band = joint_bands(statistics(cells, [scope])[:1], [None], 100)[0]
    # A mean of group totals, weighted: the regression on a constant of what a case gains in its group.
    gains = np.repeat(correct @ scope / truth, 5)
    groups = np.repeat(np.arange(60), 5)
    fit = sm.OLS(gains, np.ones((300, 1))).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
    assert band.value == pytest.approx(fit.params[0], abs=1e-12)
    assert band.error == pytest.approx(fit.bse[0] * np.sqrt(60 / 59), abs=1e-9)


def test_bands_of_more_figures_are_wider_and_contain_those_of_fewer():
    cells = population(80, 3, 3)
    few = joint_bands(statistics(cells, scopes(3)[:1])[:1], [None], 500)[0]
    many = joint_bands(statistics(cells, scopes(3)), [None] * 10, 500)[0]
    assert many.low < few.low < few.value < few.high < many.high


def test_what_does_not_vary_takes_no_part_and_disturbs_nothing():
    cells = population(50, 3, 2)
    figures = statistics(cells, scopes(2)[:1])
    still = Statistic(np.ones((50, 1)), np.ones((50, 1)))
    undefined = Statistic(np.zeros((50, 1)), np.eye(50)[:, :1])  # has a total in few resamples only
    alone = joint_bands(figures, [None] * 5, 300)
    mixed = joint_bands([*figures, still, undefined], [None] * 7, 300)
    assert mixed[:5] == alone and mixed[5].low is None and mixed[6].low is None
    assert joint_bands([], [], 300) == []


def coverage(studies: int, units: int, seed: int) -> float:
    """Share of studies, drawn from one population, whose bands hold every true difference."""
    whole = population(20_000, 4, 3, seed)
    rng = np.random.default_rng(seed)
    chosen = scopes(3)
    true = [statistic.numerators.sum(0) / statistic.denominators.sum(0) for statistic in statistics(whole, chosen)]

    holding_sets = 0
    for _ in range(studies):
        study = Cells(whole.counts[rng.integers(0, len(whole.counts), units)])
        bands = joint_bands(statistics(study, chosen), [None] * len(true), 600)
        holding_sets += all(band.low <= ratios.sum() <= band.high for band, ratios in zip(bands, true, strict=True))

    return holding_sets / studies


def test_bands_hold_all_true_differences_in_most_of_a_few_simulated_studies():
    assert 0.89 <= coverage(120, 60, seed=4) <= 0.99


@pytest.mark.nightly
@pytest.mark.parametrize(("units", "seed"), [(100, 2), (60, 4)])
def test_bands_hold_all_true_differences_in_93_to_97_percent_of_1000_simulated_studies(units, seed):
    assert 0.93 <= coverage(1000, units, seed) <= 0.97
