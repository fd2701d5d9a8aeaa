from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from warehouse.comparison.crossed import crossed, expected_half_width, in_words, needed, verdict_on


def of_cells(cells):
    """The interval of a table (trainings, units), whose value of a training is the mean of its row."""
    cells = np.asarray(cells, dtype=float)
    values = cells.mean(axis=1)
    return crossed(values, (cells - values[:, None]) / cells.shape[1])


def test_one_training_is_students_interval_over_groups_and_what_does_not_vary_has_none():
    cells = np.random.default_rng(0).normal(size=(1, 30))
    found = of_cells(cells)
    expected = stats.ttest_1samp(cells[0], 0).confidence_interval()
    assert found.interval() == pytest.approx((expected.low, expected.high))
    assert found.components == (None, pytest.approx(cells.var(ddof=1)), None)
    assert of_cells(np.ones((1, 12))) is of_cells(np.ones((3, 12))) is None


@pytest.mark.parametrize("seed", range(5))
def test_mean_squares_are_those_of_loops_and_the_variance_is_never_below_that_of_one_of_both_alone(seed):
    rng = np.random.default_rng(seed)
    shape = trainings, units = (int(rng.integers(2, 6)), int(rng.integers(10, 40)))
    cells = rng.normal(size=shape) + 0.5 * rng.normal(size=(trainings, 1)) * (seed % 2)
    mean = cells.mean()
    rows, columns = cells.mean(axis=1), cells.mean(axis=0)
    of_trainings = sum(units * (row - mean) ** 2 for row in rows) / (trainings - 1)
    of_units = sum(trainings * (column - mean) ** 2 for column in columns) / (units - 1)
    rest = sum((cells[i, j] - rows[i] - columns[j] + mean) ** 2 for i in range(trainings) for j in range(units))
    rest /= (trainings - 1) * (units - 1)

    found = of_cells(cells)
    assert found.error**2 * cells.size == pytest.approx(max(of_trainings + of_units - rest, of_trainings, of_units))
    assert found.freedom >= trainings - 1
    expected = (max(0, (of_trainings - rest) / units), max(0, (of_units - rest) / trainings), rest)
    assert found.components == pytest.approx(expected)
    assert found.error >= stats.sem(rows) - 1e-12 and found.error >= stats.sem(columns) - 1e-12


def test_two_trainings_and_two_groups_by_hand():
    """Mean squares: trainings 9, groups 4, rest 1; variance (9 + 4 - 1) / 4; freedom 12^2 / (9^2 + 4^2 + 1^2)."""
    found = of_cells([[1, 2], [3, 6]])
    assert (found.difference, found.error, found.freedom) == pytest.approx((3, 3**0.5, 144 / 98))
    assert found.components == pytest.approx((4, 1.5, 1))
    half = stats.t.ppf(0.975, 144 / 98) * 3**0.5
    assert found.interval() == pytest.approx((3 - half, 3 + half))
    assert found.p_worse(0.5) == pytest.approx(stats.t.sf(3.5 / 3**0.5, 144 / 98))


def test_what_is_needed_is_the_first_number_that_does_and_more_of_the_other_does_not_help():
    components = (0.0004, 0.0002, 0.003)
    seeds, groups = needed(3, 63, components, 0.02)
    for more, enough in ((seeds - 1, False), (seeds, True)):
        assert (expected_half_width(3 + more, 63, components) <= 0.02) == enough
    assert groups is None, "three trainings differ too much, however many groups there are"
    assert needed(3, 63, (0.0, 0.02, 0.0), 0.02)[0] is None, "and the other way round"
    assert needed(1, 63, (None, 0.02, None), 0.02) == (None, pytest.approx(132, abs=2))


ROW = {"seeds": 3, "cases": 900, "groups": 60, "low": -0.03, "high": 0.03, "margin": 0.02}


@pytest.mark.parametrize(
    ("low", "high", "verdict", "worse_if_higher"),
    [
        (-0.019, 0.03, "not worse", "cannot conclude"),
        (-0.019, 0.019, "within", "within"),
        (-0.05, -0.021, "worse", "not worse"),
        (-0.03, 0.03, "cannot conclude", "cannot conclude"),
        (0.021, 0.05, "not worse", "worse"),
    ],
)
def test_a_verdict_says_on_which_side_of_the_margins_the_interval_lies(low, high, verdict, worse_if_higher):
    assert verdict_on("accuracy", low, high, 0.02) == verdict
    assert verdict_on("over_triage", low, high, 0.02) == worse_if_higher


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"verdict": "not worse"}, "not worse by 2 points"),
        ({"verdict": "within", "margin": 0.035}, "within 3.5 points"),
        ({"verdict": "worse"}, "worse by more than 2 points"),
        ({"more_seeds": 1, "more_groups": 60}, "cannot conclude: at least 1 more seed"),
        ({"more_seeds": 9, "more_groups": 60}, "cannot conclude: at least 60 more groups"),
        ({"more_groups": 1200, "groups": None}, "cannot conclude: at least 1,200 more cases"),
        ({}, "cannot conclude: more seeds and more groups"),
        ({"low": -0.025, "high": 0.01}, "cannot conclude: too close to 2 points"),
        ({"seeds": 1, "more_groups": 5}, "cannot conclude: a second seed"),
        ({"seeds": 1, "verdict": "worse"}, "cannot conclude: a second seed"),
        ({"low": None}, "cannot conclude"),
    ],
)
def test_a_verdict_in_words_names_the_smaller_effort(changed, words):
    row = {**ROW, "verdict": "cannot conclude", "more_seeds": None, "more_groups": None, **changed}
    assert in_words(SimpleNamespace(**row)) == words
