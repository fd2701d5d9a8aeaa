"""The interval of a difference that was measured in several trainings on the same groups of cases.

Trainings (seeds) and groups of cases are crossed: every trained pair decides every group. Both are
samples, so that the variance of the mean has a component of each. Source: the two-way random model
without replication, Searle, Casella and McCulloch, Variance Components (1992), chapter 4;
Satterthwaite, Biometrics Bulletin 2 (1946) 110-114, for the degrees of freedom; the same design in
reader studies: Obuchowski and Rockette, Communications in Statistics 24 (1995) 285-308.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.judging.point_metrics import Floats

LEVEL = 0.95
MARGIN = 0.02  # a loss that a verdict allows for, as a share of 1
LOWER_IS_BETTER = ("over_triage",)
NOT_WORSE = "not worse"  # the interval lies above -margin
WITHIN = "within"  # it lies inside both margins
WORSE = "worse"  # it lies below -margin
CANNOT_CONCLUDE = "cannot conclude"
MOST_SEEDS = 100  # further ones that `needed` considers
MOST_GROUPS = 10_000
_AT_ONCE = 500  # numbers that `_first_within` tries together
# Variances that a training, a group and both together add to one cell. With one training only that
# of a group is known, and holds all three.
Components = tuple[float | None, float, float | None]


@dataclass(frozen=True)
class Crossed:
    """A mean difference over trainings, its standard error with degrees of freedom, and estimates of
    the variance components; one below zero is 0.
    """

    difference: float
    error: float
    freedom: float
    trainings: int
    units: int
    components: Components

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        half = float(student_quantile((1 + level) / 2, self.freedom)) * self.error
        return self.difference - half, self.difference + half

    def p_worse(self, margin: float) -> float:
        """One-sided p value of the hypothesis that the true difference is at most -margin."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, -(self.difference + margin) / self.error))


def student_quantile(share: float, freedom: Any) -> Any:
    """For one number of degrees of freedom, or an array of them."""
    # Not at the top: what only reads stored figures starts fast.
    from scipy.special import stdtrit

    return stdtrit(freedom, share)


def crossed(values: Floats, influences: Floats) -> Crossed | None:
    """The mean of `values` (trainings,) with the variance of trainings and groups.

    `influences` (trainings, units): what each unit (a group, or a case without one) adds to the
    value of a training: its sum over units is 0. A ratio N / D of totals has the influences
    (n_u - N / D d_u) / D, and an AUROC those of its placements. None where nothing varies, as in a
    single unit.

    Its error and degrees of freedom come from the mean squares of z_su = units x influence + value.
    """
    trainings, units = influences.shape
    if units == 1:
        return None

    cells = trainings * units
    by_unit = influences.mean(axis=0)
    of_groups = trainings * units**2 * float((by_unit**2).sum()) / (units - 1)
    difference = float(values.mean())

    if trainings == 1:
        if of_groups == 0:
            return None
        error = math.sqrt(of_groups / cells)
        return Crossed(difference, error, units - 1, 1, units, (None, of_groups, None))

    of_trainings = units * float(((values - values.mean()) ** 2).sum()) / (trainings - 1)
    rest = units**2 * float(((influences - by_unit) ** 2).sum())
    of_cells = rest / ((trainings - 1) * (units - 1))
    if of_trainings == of_groups == 0:
        return None

    error, freedom = error_and_freedom(trainings, units, of_trainings, of_groups, of_cells)
    components = (
        max(0.0, (of_trainings - of_cells) / units),
        max(0.0, (of_groups - of_cells) / trainings),
        of_cells,
    )
    return Crossed(difference, float(error), float(freedom), trainings, units, components)


def error_and_freedom(
    trainings: Any, units: Any, of_trainings: Any, of_groups: Any, of_cells: Any
) -> tuple[Any, Any]:
    """The standard error of the mean, and its degrees of freedom, from the mean squares MS_T of
    trainings, MS_G of groups and MS_E of the rest; all may be arrays.

    Var(mean) = (MS_T + MS_G - MS_E) / (trainings x units). It is at least MS_T / (trainings x
    units), the variance of the seeds alone, and MS_G / (trainings x units), that of the groups
    alone; its degrees of freedom are Satterthwaite's, and at least trainings - 1.
    """
    square = np.maximum(of_trainings + of_groups - of_cells, np.maximum(of_trainings, of_groups))
    freedom = square**2 / (
        of_trainings**2 / (trainings - 1)
        + of_groups**2 / (units - 1)
        + of_cells**2 / ((trainings - 1) * (units - 1))
    )
    return np.sqrt(square / (trainings * units)), np.maximum(freedom, trainings - 1)


def expected_half_width(trainings: Any, units: Any, components: Components) -> Any:
    """Half of the interval of LEVEL that so many trainings and units would have with these
    components; either number may be an array, and so is the result then.
    """
    of_training, of_unit, of_cell = components
    if of_training is None or of_cell is None:
        return student_quantile((1 + LEVEL) / 2, units - 1) * np.sqrt(of_unit / units)

    trainings_square = units * of_training + of_cell
    units_square = trainings * of_unit + of_cell
    error, freedom = error_and_freedom(trainings, units, trainings_square, units_square, of_cell)
    return student_quantile((1 + LEVEL) / 2, freedom) * error


def needed(
    trainings: int, units: int, components: Components, margin: float
) -> tuple[int | None, int | None]:
    """How many more trainings, with these units, and how many more units, with these trainings, make
    half of the expected interval at most `margin`; None where no number up to MOST_SEEDS or
    MOST_GROUPS does, and for trainings where there is one, which does not tell how they differ.
    """
    more_seeds = None
    if trainings > 1:
        more_seeds = _first_within(
            margin,
            MOST_SEEDS,
            lambda more: expected_half_width(trainings + more, units, components),
        )
    more_units = _first_within(
        margin, MOST_GROUPS, lambda more: expected_half_width(trainings, units + more, components)
    )
    return more_seeds, more_units


def verdict_on(metric: str, low: float, high: float, margin: float) -> str:
    """The verdict that the interval of a metric's difference gives, whichever way it is better."""
    if metric in LOWER_IS_BETTER:
        low, high = -high, -low
    if low > -margin:
        return WITHIN if high < margin else NOT_WORSE
    return WORSE if high < -margin else CANNOT_CONCLUDE


def in_words(row: Any, is_of_one: bool = False) -> str:
    """The verdict of a row of `quantization_summary`, or of one with its columns, as it is printed:
    `cannot conclude: at least 2 more seeds` names what takes the smaller share of what there is.

    `is_of_one`: one seed is no lack, since the verdict is about one training with itself. Else one
    seed concludes nothing, whatever its cases say: another one may have the opposite sign.
    """
    points = f"{100 * row.margin:g} points"
    if row.seeds == 1 and row.low is not None and not is_of_one:
        return f"{CANNOT_CONCLUDE}: a second seed"
    if row.verdict != CANNOT_CONCLUDE:
        by = {NOT_WORSE: "not worse by", WITHIN: "within", WORSE: "worse by more than"}
        return f"{by[row.verdict]} {points}"
    if row.low is None:
        return CANNOT_CONCLUDE

    units, unit = (row.cases, "case") if row.groups is None else (row.groups, "group")
    efforts = [
        (more / there, f"at least {more:,} more {name}{'' if more == 1 else 's'}")
        for more, there, name in (
            (row.more_seeds, row.seeds, "seed"),
            (row.more_groups, units, unit),
        )
        if more is not None
    ]
    if efforts:
        return f"{CANNOT_CONCLUDE}: {min(efforts)[1]}"
    if (row.high - row.low) / 2 <= row.margin:
        return f"{CANNOT_CONCLUDE}: too close to {points}"
    return f"{CANNOT_CONCLUDE}: {'' if is_of_one else 'more seeds and '}more {unit}s"


def _first_within(
    margin: float, most: int, half_width: Callable[[NDArray[np.int_]], Floats]
) -> int | None:
    """The first number from 1 to `most` whose half width is within the margin, part by part: the
    quantiles of all would take longer than all else about a pair.
    """
    for start in range(1, most + 1, _AT_ONCE):
        numbers = np.arange(start, min(start + _AT_ONCE, most + 1))
        is_within = half_width(numbers) <= margin
        if is_within.any():
            return int(numbers[is_within.argmax()])
    return None
