"""Are the label probabilities true, and how well do they rank? Metrics that no decision rule changes,
each with its 95 % interval.

Of all labels: expected calibration error and Brier score. Of a class against the others: AUROC,
average precision, calibration slope and intercept. Of p(ED): its reliability and the decision curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from tasks.judging.intervals import (
    UNDEFINED,
    Groups,
    Interval,
    Statistic,
    UnitDraws,
    clopper_pearson,
    metric_row,
    percentile_interval,
    unit_sums,
)
from tasks.judging.metrics import few_of_subgroup, label_probabilities
from tasks.judging.point_metrics import MIN_UNITS, Floats, Ints, Row, Rows, label_codes, ratio
from tasks.spec import LABELS, Label

CALIBRATION_METRICS = ("ece", "ed_ece", "brier", "ed_brier")
ECE_CASES = 300  # below this the ECE of a perfect model is mostly noise
BINS = 10
# Under costs of 100:2 the best threshold on p(ED) is near 0.01, where a single ECE sees nothing.
EDGES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
RANKING_METRICS = ("auroc", "average_precision")
RECALIBRATION_METRICS = ("calibration_slope", "calibration_intercept")
SCORE_METRICS = (*RANKING_METRICS, *RECALIBRATION_METRICS)
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the decision curve
SMALLEST_P = 1e-12  # a probability that was rounded to 0 or 1 still needs a finite logit
STEPS = 100


def calibration_table(
    labels: Sequence[str],
    p: ArrayLike,
    groups: Groups | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Rows:
    """Metrics ece (top label), ed_ece, brier (sum over labels, 0 to 2) and ed_brier; p (cases, 3).

    All four share one set of resamples: whole groups, or without groups single cases.
    """
    values = label_probabilities(p)
    truth = label_codes(labels)
    cases = len(truth)
    squares = (values - np.eye(3)[truth]) ** 2
    # A metric is the sum of the absolute means of its columns, (cases, k): an ECE has a column per
    # bin. The order of metrics decides which resamples are drawn.
    columns = {"brier": squares.sum(axis=1)[:, None], "ed_brier": squares[:, :1]}
    binned: dict[str, Floats] = {}
    if cases >= ECE_CASES:
        binned = {"ece": values.max(axis=1), "ed_ece": values[:, 0]}
        hits = {"ece": values.argmax(axis=1) == truth, "ed_ece": truth == 0}
        for name, scores in binned.items():
            columns[name] = np.eye(BINS)[equal_mass_bins(scores)] * (hits[name] - scores)[:, None]

    summed = np.column_stack([*columns.values(), np.ones(cases)])
    draws = UnitDraws.of(summed, groups, seed, resamples)
    sums = draws.sums(summed)
    ends = np.cumsum([part.shape[1] for part in columns.values()])[:-1]

    def statistic(counts: Floats) -> Floats:
        totals = sums.T @ counts
        means = np.split((totals[:-1] / totals[-1]).T, ends, axis=1)
        return np.stack([np.abs(part).sum(axis=-1) for part in means])

    resampled: dict[str, Floats] = {}
    if draws.units >= MIN_UNITS:
        resampled = dict(zip(columns, draws.resampled([statistic])[0], strict=True))

    rows = []
    for name in CALIBRATION_METRICS:
        value = interval = note = None
        if name not in columns:
            note = f"not available: {cases} cases, an ECE needs {ECE_CASES}"
        elif cases == 0:
            note = "not available: no cases"
        else:
            value = float(np.abs(columns[name].mean(axis=0)).sum())
            percentiles = percentile_interval(resampled[name]) if resampled else None
            if percentiles is None:
                note = f"no interval: fewer than {MIN_UNITS} independent units for a bootstrap"
            else:
                method, note = draws.method
                if name in binned:
                    method = f"reflected {method}"
                    percentiles = _reflected(value, percentiles, binned[name], seed)
                interval = Interval(*percentiles, method)
        rows.append(metric_row(name, value, cases, note, interval))

    return rows


def equal_mass_bins(scores: ArrayLike) -> Ints:
    """Bin (0 to BINS - 1) of each score. Bins are about equally full; equal scores share one."""
    values = np.asarray(scores, dtype=np.float64)
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _reflected(
    value: float, percentiles: tuple[float, float], scores: Floats, seed: int
) -> tuple[float, float]:
    """Interval of an ECE. The plain percentile interval excludes the truth of a good model, since
    noise alone makes an ECE positive, and resampling adds more of it.

    So the bootstrap is reflected about the estimate (basic bootstrap), and reaches down to 0 whenever
    a perfectly calibrated model would often show as much: up to the 97.5 % quantile of the ECE if
    each score were the true probability of a hit (consistency resampling, Broecker and Smith, 2007).
    In simulations it held the truth in 87 to 98 of 100 sets.
    """
    rng = np.random.default_rng(seed)
    gaps = (rng.random((500, len(scores))) < scores).astype(np.float64) - scores
    errors = np.abs(gaps @ np.eye(BINS)[equal_mass_bins(scores)]).sum(axis=1) / len(scores)
    low = max(0.0, 2 * value - percentiles[1]) if value > np.quantile(errors, 0.975) else 0.0
    return low, max(2 * value - percentiles[0], low)


def reliability_rows(labels: Sequence[str], p_ed: ArrayLike) -> Rows:
    """Reliability of p(ED), a row per bin of EDGES: cases with low <= p(ED) < high (the last row
    includes 1), mean p(ED) beside the share that was ED, with its exact 95 % interval. None in a bin
    without cases.
    """
    scores = np.asarray(p_ed, dtype=np.float64)
    is_ed = label_codes(labels) == 0
    bins = np.searchsorted(np.asarray(EDGES[1:-1]), scores, side="right")
    rows = []
    for i, (low, high) in enumerate(pairwise(EDGES)):
        own = bins == i
        cases = int(own.sum())
        row: Row = dict.fromkeys(("mean_p_ed", "ed_share", "share_low", "share_high"))
        if cases:
            ed_cases = int(is_ed[own].sum())
            row = {"mean_p_ed": float(scores[own].mean()), "ed_share": ed_cases / cases}
            row["share_low"], row["share_high"] = clopper_pearson(ed_cases, cases)
        rows.append({"low": low, "high": high, "n": cases, **row})

    return rows


def logits(p: Floats) -> Floats:
    """log(p / (1 - p)), of probabilities held between SMALLEST_P and 1 - SMALLEST_P."""
    clipped = np.clip(p, SMALLEST_P, 1 - SMALLEST_P)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def why_not_fitted(x: Floats, is_positive: Ints) -> str | None:
    """Why the regression has no finite fit, which is separation: no overlap of both classes (Albert
    and Anderson, Biometrika 71 (1984) 1-10); None where it has one. Both classes are there.
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

    def likelihood_at(values: Floats) -> float:
        predictor = design @ values + offset
        return float((outcome * predictor - np.logaddexp(0, predictor)).sum())

    likelihood = likelihood_at(coefficients)
    for _ in range(STEPS):
        mean = expit(design @ coefficients + offset)
        information = (design * (mean * (1 - mean))[:, None]).T @ design

        step = np.linalg.lstsq(information, design.T @ (outcome - mean))[0]
        # A loss within rounding counts as none: near the optimum it would shrink steps for nothing.
        least = likelihood - 1e-12 * abs(likelihood)
        while (next_likelihood := likelihood_at(coefficients + step)) < least:
            step = step / 2

        coefficients = coefficients + step
        likelihood = next_likelihood
        if np.abs(step).max() < 1e-12:
            break

    return np.asarray(coefficients)


def recalibration(x: Floats, is_positive: Ints, unit: Ints, units: int) -> Statistic:
    """The Statistic of slope and intercept, shape (2, resamples), from a logistic regression of the
    outcome on the logit of p(class), unpenalised.

    The slope is that of logit P(class) = a + b logit p (Cox, Biometrika 45 (1958) 562-565): 1 is
    ideal, below 1 the probabilities are too extreme. The intercept is that of the same regression
    with the slope held at 1 (calibration in the large): 0 is ideal, above 0 the class is more
    frequent than the probabilities say. Both as in Van Calster et al., BMC Medicine 17 (2019) 230.

    In a resample both move one Newton step from the fit of the set itself, which takes totals of
    cases alone and equals a full fit up to terms that vanish faster than the standard error
    (Davidson and MacKinnon, International Economic Review 40 (1999) 487-508).

    `x`: logits; arguments but the last of shape (cases,). There must be a finite fit.
    """
    outcome = is_positive.astype(np.float64)
    ones = np.ones((len(x), 1))
    line = fitted(np.column_stack([ones, x]), outcome, np.zeros(len(x)))
    (at_slope_1,) = fitted(ones, outcome, x)
    # Score and information of each case: of the line (2 and 3 columns) and of the intercept at
    # slope 1 (1 and 1), then whether it is of the class, and whether not.
    on_line = expit(line[0] + line[1] * x)
    in_the_large = expit(at_slope_1 + x)
    residual = outcome - on_line
    weight = on_line * (1 - on_line)
    of_line = (residual, residual * x, weight, weight * x, weight * x**2)
    alone = in_the_large * (1 - in_the_large)
    columns = [*of_line, outcome - in_the_large, alone, outcome, 1 - outcome]
    sums = unit_sums(np.column_stack(columns), unit, units)

    def statistic(counts: Floats) -> Floats:
        """NaN for a resample without positives, without negatives or with one probability alone."""
        totals = sums.T @ counts
        score_0, score_1, weight, weighted, squared, score, alone, inside, outside = totals
        determinant = weight * squared - weighted**2
        slope = line[1] + ratio(weight * score_1 - weighted * score_0, determinant)
        intercept = float(at_slope_1) + ratio(score, alone)
        defined = (inside > 0) & (outside > 0)
        return np.where(defined, np.stack([slope, intercept]), np.nan)

    return statistic


@dataclass(frozen=True)
class ClassScores:
    """The probability of a class on some cases of a set, `rows`; `least`: how many cases of the
    class, and others, the metrics need.
    """

    label: Label
    p: Floats  # (cases of the set, 3)
    truth: Ints  # positions in LABELS, (cases of the set,)
    rows: Ints
    least: int = 1

    @property
    def is_positive(self) -> Ints:
        return (self.truth[self.rows] == LABELS.index(self.label)).astype(np.int64)

    def statistics(self, draws: UnitDraws) -> dict[tuple[str, ...], Statistic | str]:
        """By the metrics that it gives, a statistic, or the reason why there is none."""
        positives = int(self.is_positive.sum())
        for kind, cases in (
            (self.label, positives),
            (f"non-{self.label}", len(self.rows) - positives),
        ):
            if cases == 0:
                return {SCORE_METRICS: f"no {kind} case in this set"}
            if cases < self.least:
                return {SCORE_METRICS: few_of_subgroup(cases, f"{kind} cases")}

        scores = np.asarray(self.p[self.rows, LABELS.index(self.label)])
        units = draws.unit[self.rows], draws.units
        x = logits(scores)
        line = why_not_fitted(x, self.is_positive) or recalibration(x, self.is_positive, *units)
        of_ranking = ranking(scores, self.is_positive, *units)
        return {RANKING_METRICS: of_ranking, RECALIBRATION_METRICS: line}

    def row(
        self, name: str, value: float | None, note: str | None, interval: Interval | None = None
    ) -> Row:
        return metric_row(f"{self.label.lower()}_{name}", value, len(self.rows), note, interval)

    def row_over(self, draws: UnitDraws, name: str, value: float, resampled: Floats) -> Row:
        """The row of a metric, whose interval needs enough units of the class and of the others."""
        positive = self.is_positive == 1
        reasons = [draws.why_no_interval(self.rows[kind]) for kind in (positive, ~positive)]
        reason = reasons[0] or reasons[1]
        ends = None if reason else percentile_interval(resampled)
        if ends is None:
            return self.row(name, float(value), f"no interval: {reason or UNDEFINED}")
        method, note = draws.method
        return self.row(name, float(value), note, Interval(*ends, method))


def score_metrics(
    parts: Sequence[ClassScores], draws: UnitDraws, curve: Statistic
) -> tuple[list[Rows], Floats]:
    """The metrics of SCORE_METRICS of each part, named e.g. `ed_auroc`; and the values of the
    decision curve over the same resamples.
    """
    planned = [part.statistics(draws) for part in parts]
    all_planned = [one for of_part in planned for one in of_part.values()]
    statistics = [one for one in all_planned if not isinstance(one, str)]
    *values, of_curve = draws.resampled([*statistics, curve])
    remaining = iter(values)

    metrics = []
    for part, of_part in zip(parts, planned, strict=True):
        rows: Rows = []
        for names, one in of_part.items():
            if isinstance(one, str):
                rows += [part.row(name, None, f"not available: {one}") for name in names]
            else:
                figures = zip(names, draws.all_once(one), next(remaining), strict=True)
                rows += [part.row_over(draws, *of_metric) for of_metric in figures]
        metrics.append(rows)

    return metrics, of_curve


def ranking(scores: Floats, is_positive: Ints, unit: Ints, units: int) -> Statistic:
    """The Statistic of AUROC and average precision, shape (2, resamples): those of scikit-learn with
    the weights of each resample as `sample_weight`.

    A level is a score of at least one positive case; levels fall. Each matrix, shape (levels,
    units), counts cases between a level and the next higher one, the lower level included.
    """
    from scipy.sparse import coo_array, csr_array

    truth = is_positive.astype(bool)
    levels = np.unique(scores[truth])[::-1]
    level = np.searchsorted(-levels, -scores, side="left")

    def counted(mask: NDArray[np.bool_]) -> csr_array:
        ones = np.ones(int(mask.sum()))
        shape = (len(levels), units)
        return coo_array((ones, (level[mask], unit[mask])), shape=shape).tocsr()

    reached = ~truth & (level < len(levels))
    has_a_level = reached.copy()
    has_a_level[reached] = levels[level[reached]] == scores[reached]
    positive = counted(truth)
    negative = counted(reached)
    tied = counted(has_a_level)
    all_negative = np.bincount(unit[~truth], minlength=units).astype(np.float64)

    def statistic(counts: Floats) -> Floats:
        """NaN for a resample without positives or without negatives.

        Average precision is the step function of the precision over the recall, without
        interpolation.
        """
        at_level = positive @ counts
        caught = np.cumsum(at_level, axis=0)
        alarms = np.cumsum(negative @ counts, axis=0)
        positives = caught[-1]
        negatives = all_negative @ counts

        precision = caught / np.maximum(caught + alarms, 1.0)
        average = ratio(np.einsum("lr,lr->r", at_level, precision), positives)
        # After the average precision, which counts ties in full; in the area each is one half.
        if tied.nnz:
            alarms -= (tied @ counts) / 2

        above = ratio(np.einsum("lr,lr->r", at_level, alarms), positives * negatives)
        area = 1 - above
        return np.stack([area, np.where(negatives > 0, average, np.nan)])

    return statistic


def decision_curve(p_ed: Floats, is_ed: Ints, draws: UnitDraws) -> Statistic:
    """The Statistic of the net benefit of each threshold on p(ED), then what it has over ED for all.

    The net benefit of a threshold t is (caught emergencies - t / (1 - t) false alarms) / cases
    (Vickers and Elkin, Medical Decision Making 26 (2006) 565-574): whoever sends a case to ED from
    a risk of t on holds one missed emergency as bad as (1 - t) / t false alarms. Sending nobody has
    net benefit 0. `p_ed` and `is_ed` are of shape (cases,).
    """
    thresholds = np.array(THRESHOLDS)
    of_ed = np.where(is_ed[:, None] == 1, 1.0, -thresholds / (1 - thresholds))
    sent_to_ed = (p_ed[:, None] >= thresholds) * of_ed
    sums = draws.sums(np.column_stack([sent_to_ed, sent_to_ed - of_ed, np.ones(len(p_ed))]))

    def statistic(counts: Floats) -> Floats:
        totals = sums.T @ counts
        return np.asarray(totals[:-1] / totals[-1])

    return statistic


def net_benefits(curve: Statistic, resampled: Floats, draws: UnitDraws) -> Rows:
    """A row of the table `net_benefit` per threshold, with 95 % intervals, paired by case for the
    difference from ED for all. `resampled`: the values of `curve` over the resamples of `draws`.
    """
    benefit, over = np.split(draws.all_once(curve), 2)
    reason = draws.why_no_interval(slice(None))
    ends = [
        (None if reason else percentile_interval(values)) or (None, None) for values in resampled
    ]
    method, note = ("none", f"no interval: {reason}") if reason else draws.method

    return [
        {
            "threshold": threshold,
            "n": len(draws.unit),
            "net_benefit": float(benefit[i]),
            "low": ends[i][0],
            "high": ends[i][1],
            "always_ed": float(benefit[i] - over[i]),
            "over_always_ed": float(over[i]),
            "over_always_ed_low": ends[len(THRESHOLDS) + i][0],
            "over_always_ed_high": ends[len(THRESHOLDS) + i][1],
            "method": method,
            "note": note,
        }
        for i, threshold in enumerate(THRESHOLDS)
    ]
