"""Calibration slope and intercept: a logistic regression of the outcome on the logit of p(class).

The slope is that of logit P(class) = a + b logit p (Cox, Biometrika 45 (1958) 562-565): 1 is ideal,
below 1 the probabilities are too extreme. The intercept is that of the same regression with the
slope held at 1 (calibration in the large): 0 is ideal, above 0 the class is more frequent than the
probabilities say. Both as in Van Calster et al., BMC Medicine 17 (2019) 230. Nothing is penalised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from tasks.judging.point_metrics import Floats, Ints, ratio
from tasks.judging.unit_draws import unit_sums

RECALIBRATION_METRICS = ("calibration_slope", "calibration_intercept")
SMALLEST_P = 1e-12  # a probability that was rounded to 0 or 1 still needs a finite logit
STEPS = 100


def logits(p: Floats) -> Floats:
    """log(p / (1 - p)), of probabilities held between SMALLEST_P and 1 - SMALLEST_P."""
    clipped = np.clip(p, SMALLEST_P, 1 - SMALLEST_P)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def why_not_fitted(x: Floats, is_positive: Ints) -> str | None:
    """Why the regression has no finite fit; None where it has one.

    With one covariate that is separation: no overlap of both classes (Albert and Anderson,
    Biometrika 71 (1984) 1-10). Both classes are there.
    """
    positives = x[is_positive == 1]
    negatives = x[is_positive == 0]
    if np.ptp(x) == 0:
        return "every case has the same probability"
    if positives.min() >= negatives.max() or positives.max() <= negatives.min():
        return "the probabilities part the class from the others without overlap"
    return None


def fitted(design: Floats, outcome: Floats, offset: Floats) -> Floats:
    """Coefficients (k,) of greatest likelihood; design (cases, k), outcome and offset (cases,).

    Newton's method with halved steps. The likelihood has a finite maximum (`why_not_fitted`).
    """
    coefficients = np.zeros(design.shape[1])
    likelihood = _likelihood(design @ coefficients + offset, outcome)
    for _ in range(STEPS):
        mean = expit(design @ coefficients + offset)
        information = (design * (mean * (1 - mean))[:, None]).T @ design

        step = np.linalg.lstsq(information, design.T @ (outcome - mean))[0]
        # A loss within rounding counts as none: near the optimum it would shrink steps for nothing.
        while (next_likelihood := _likelihood(design @ (coefficients + step) + offset, outcome)) < (
            likelihood - 1e-12 * abs(likelihood)
        ):
            step = step / 2

        coefficients = coefficients + step
        likelihood = next_likelihood
        if np.abs(step).max() < 1e-12:
            break

    return np.asarray(coefficients)


def _likelihood(predictor: Floats, outcome: Floats) -> float:
    return float((outcome * predictor - np.logaddexp(0, predictor)).sum())


@dataclass(frozen=True)
class Recalibration:
    """A Statistic: slope and intercept.

    In a resample both move one Newton step from the fit of the set itself, which is equal to a full
    fit up to terms that vanish faster than the standard error (Davidson and MacKinnon,
    International Economic Review 40 (1999) 487-508), and takes totals of cases alone: a full fit
    of 2,000 resamples would take longer than all other figures of an evaluation.

    `line`: intercept and slope together; `intercept`: at slope 1; `sums`: of the columns of
    `_columns` over the cases of each unit, shape (units, 9).
    """

    line: Floats
    intercept: float
    sums: Floats

    @classmethod
    def of(cls, x: Floats, is_positive: Ints, unit: Ints, units: int) -> Recalibration:
        """`x`: logits; arguments but the last of shape (cases,). There must be a finite fit."""
        outcome = is_positive.astype(np.float64)
        ones = np.ones((len(x), 1))
        line = fitted(np.column_stack([ones, x]), outcome, np.zeros(len(x)))
        (intercept,) = fitted(ones, outcome, x)
        columns = _columns(x, outcome, expit(line[0] + line[1] * x), expit(intercept + x))
        return cls(line, float(intercept), unit_sums(columns, unit, units))

    def __call__(self, counts: Floats) -> Floats:
        """Shape (2, resamples), NaN for a resample without positives, without negatives or with
        one probability alone.
        """
        totals = self.sums.T @ counts
        score_0, score_1, weight, weighted, squared, score, alone, inside, outside = totals
        determinant = weight * squared - weighted**2
        slope = self.line[1] + ratio(weight * score_1 - weighted * score_0, determinant)
        intercept = self.intercept + ratio(score, alone)
        defined = (inside > 0) & (outside > 0)
        return np.where(defined, np.stack([slope, intercept]), np.nan)


def _columns(x: Floats, outcome: Floats, on_line: Floats, at_slope_1: Floats) -> Floats:
    """Score and information of each case: of the line (2 and 3 columns) and of the intercept at
    slope 1 (1 and 1), then whether it is of the class, and whether not.
    """
    residual = outcome - on_line
    weight = on_line * (1 - on_line)
    alone = at_slope_1 * (1 - at_slope_1)
    line = (residual, residual * x, weight, weight * x, weight * x**2)
    return np.column_stack([*line, outcome - at_slope_1, alone, outcome, 1 - outcome])
