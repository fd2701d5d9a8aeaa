"""Statistics of a matched pair: the same cases decided by the 4-bit and by the 8-bit model.

For a precision and its reference the same functions serve: the precision takes the place of 4 bits,
the reference that of 8 bits.

Labels and decisions are positions in LABELS (0 ED, 1 GP, 2 HOME). Every difference is 4 bits minus
8 bits. Resampling draws whole groups (conditions), since cases of one condition are not
independent; without groups it draws cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from tasks.judging.point_metrics import (
    ED_AUROC,
    MIN_UNITS,
    Floats,
    Ints,
    UnitCounts,
    accuracy,
    confusion_cells,
    expected_cost,
    f_score,
    macro_f1,
    over_triage,
    placements,
    ratio,
    recall,
    undefined_too_often,
)
from warehouse.comparison.cells import OF_EMERGENCIES
from warehouse.comparison.resampling import (
    CANNOT_CONCLUDE,
    MARGIN,
    RESAMPLES,
    SEED,
    resample_weights,
    verdict_on,
)

PROPORTIONS = ("accuracy", "ed_recall")
METRICS = (*PROPORTIONS, "ed_f2", "macro_f1", "expected_cost")
# What the comparison with a reference shows beside METRICS, and the loss.
WITH_OVER_TRIAGE = (*METRICS, "over_triage")
LOSS = "loss"
_RAREST = {"macro_f1": " of the rarest class", ED_AUROC: " of the rarer kind"}
TANGO = "Tango score interval (assumes independent cases)"
_Z = float(norm.ppf(0.975))
NO_MARGIN = {"expected_cost": "a cost", LOSS: "a loss"}


@dataclass(frozen=True)
class PairedDecisions:
    """Cases decided twice by one rule, each array (cases,).

    `unit` (0 to units - 1) is what a case is resampled with: its group, or the case alone.
    """

    truth: Ints
    at_4bit: Ints
    at_8bit: Ints
    unit: Ints
    grouped: bool


@dataclass(frozen=True)
class MetricComparison:
    """One metric of a pair; None where it is not available, for the reason in `note`.

    Fields as in `pair_metric`.
    """

    metric: str
    method: str
    n: int
    groups: int | None
    value_4bit: float | None = None
    value_8bit: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    tango_low: float | None = None
    tango_high: float | None = None
    b: int | None = None
    c: int | None = None
    mcnemar_p: float | None = None
    margin: float | None = None
    verdict: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class BothSides:
    """One metric of both models, each (tables,)."""

    at_4bit: Floats
    at_8bit: Floats

    @property
    def difference(self) -> Floats:
        return self.at_4bit - self.at_8bit


def compare(
    pair: PairedDecisions, cost: Floats | None, metrics: Sequence[str] = METRICS
) -> list[MetricComparison]:
    """METRICS of a pair, or those of `metrics`, with 95 % intervals.

    `cost` (3, 3): row = truth, column = decision; None: no cost.
    """
    sums = _tables_by_unit(pair)
    observed = _both_sides(sums.sum(axis=0, keepdims=True), cost)
    resamples = _both_sides(resampled(sums), cost)
    units = UnitCounts.of(pair.truth, pair.unit)

    return [
        comparison_of(metric, pair, units, observed[metric], resamples[metric].difference)
        for metric in metrics
    ]


def not_available(
    cases: int, reason: str, metrics: Sequence[str] = METRICS
) -> list[MetricComparison]:
    """METRICS of a pair, or those of `metrics`, that cannot be compared by this rule."""
    note = f"not available: {reason}"
    return [MetricComparison(metric, "none", cases, None, note=note) for metric in metrics]


def _tables_by_unit(pair: PairedDecisions) -> Floats:
    """(units, 18): each unit's confusion table at 4 bits, then the one at 8 bits."""
    cells = [
        confusion_cells(pair.truth, pair.at_4bit),
        confusion_cells(pair.truth, pair.at_8bit),
    ]
    return sums_by_unit(pair, np.concatenate(cells, axis=1))


def sums_by_unit(pair: PairedDecisions, per_case: Floats) -> Floats:
    """Sums of the columns of `per_case` (cases, columns) over each unit, (units, columns)."""
    sums = np.zeros((int(pair.unit.max()) + 1, per_case.shape[1]))
    np.add.at(sums, pair.unit, per_case)
    return sums


def resampled(sums: Floats) -> Floats:
    """(RESAMPLES, K) totals of seeded bootstrap samples of the rows of `sums` (units, K)."""
    return np.concatenate([weights @ sums for weights in resample_weights(len(sums), RESAMPLES)])


def _both_sides(sums: Floats, cost: Floats | None) -> dict[str, BothSides]:
    """METRICS of both confusion tables in each row of `sums` (tables, 18)."""
    at_4bit = compared_metrics(sums[:, :9].reshape(-1, 3, 3), cost)
    at_8bit = compared_metrics(sums[:, 9:].reshape(-1, 3, 3), cost)
    return {metric: BothSides(at_4bit[metric], at_8bit[metric]) for metric in WITH_OVER_TRIAGE}


def compared_metrics(confusion: Floats, cost: Floats | None) -> dict[str, Floats]:
    """WITH_OVER_TRIAGE of confusion tables (tables, 3, 3), each
    (tables,); NaN where one is not defined.
    """
    return {
        "accuracy": accuracy(confusion),
        "ed_recall": recall(confusion)[:, 0],
        "ed_f2": f_score(confusion, 2)[:, 0],
        "macro_f1": macro_f1(confusion),
        "expected_cost": expected_cost(confusion, cost),
        "over_triage": over_triage(confusion),
    }


def comparison_of(
    metric: str,
    pair: PairedDecisions,
    units: UnitCounts,
    observed: BothSides,
    differences: Floats,
) -> MetricComparison:
    """One metric: observed values, and an interval from resampled `differences` (resamples,)."""
    comparison = _without_figures(metric, pair, units)
    value_4bit = float(observed.at_4bit[0])
    value_8bit = float(observed.at_8bit[0])
    if math.isnan(value_4bit) or math.isnan(value_8bit):
        reason = _why_undefined(metric, units)
        return replace(comparison, note=f"not available: {reason}")

    comparison = replace(
        comparison,
        value_4bit=value_4bit,
        value_8bit=value_8bit,
        difference=value_4bit - value_8bit,
    )
    return _with_verdict(_with_intervals(comparison, pair, units, differences))


def _why_undefined(metric: str, units: UnitCounts) -> str:
    if metric == "expected_cost":
        return "no cost matrix was given"
    return "no case but ED in the set" if units.by_class[0] else "no ED case in the set"


def _without_figures(metric: str, pair: PairedDecisions, units: UnitCounts) -> MetricComparison:
    drawn_units = f"{_unit_count(metric, units)} {_kind_of_unit(pair)}"
    return MetricComparison(
        metric=metric,
        method=f"paired bootstrap of {drawn_units}, {RESAMPLES} resamples, seed {SEED}"
        + (", of placements (linearised)" if metric == ED_AUROC else ""),
        n=int(_included_cases(metric, pair).sum()),
        groups=_unit_count(metric, units) if pair.grouped else None,
    )


def _with_intervals(
    comparison: MetricComparison, pair: PairedDecisions, units: UnitCounts, differences: Floats
) -> MetricComparison:
    """Add the bootstrap interval, or why there is none, and for proportions the exact tests."""
    metric = comparison.metric
    if obstacle := _why_no_bootstrap(metric, pair, units, differences):
        comparison = replace(comparison, method="none", note=f"no bootstrap: {obstacle}")
    else:
        comparison = _with_bootstrap(comparison, differences)

    if metric in PROPORTIONS:
        b, c = discordant(pair, _included_cases(metric, pair))
        comparison = _with_exact_tests(comparison, b, c)

    return comparison


def _included_cases(metric: str, pair: PairedDecisions) -> NDArray[np.bool_]:
    """Which cases a metric is computed from: those with the label ED, or all."""
    if metric in OF_EMERGENCIES:
        return pair.truth == 0
    return np.ones(len(pair.truth), dtype=bool)


def _unit_count(metric: str, units: UnitCounts) -> int:
    """Units that hold the cases that a metric is computed from."""
    return int(units.by_class[0]) if metric in OF_EMERGENCIES else units.total


def _kind_of_unit(pair: PairedDecisions) -> str:
    return "groups" if pair.grouped else "cases (assumes independent cases)"


def _why_no_bootstrap(
    metric: str, pair: PairedDecisions, units: UnitCounts, differences: Floats
) -> str | None:
    """Why resampling says too little about a metric, or None."""
    if not units.are_enough_for(metric):
        of_class = _RAREST.get(metric, "")
        few = f"{units.behind(metric)} {_kind_of_unit(pair)}{of_class}"
        return f"{few} are too few (it needs {MIN_UNITS})"
    return "undefined in too many resamples" if undefined_too_often(differences) else None


def _with_bootstrap(comparison: MetricComparison, differences: Floats) -> MetricComparison:
    """Add the percentile interval of the resampled differences."""
    low, high = (float(bound) for bound in np.nanpercentile(differences, [2.5, 97.5]))
    return replace(comparison, low=low, high=high, bootstrap_low=low, bootstrap_high=high)


def _with_exact_tests(comparison: MetricComparison, b: int, c: int) -> MetricComparison:
    """Add McNemar's test and the Tango interval, which has a width even if all decisions agree."""
    tango_low, tango_high = tango_interval(b, c, comparison.n)
    low = tango_low
    high = tango_high
    method = TANGO
    if comparison.low is not None and comparison.high is not None:
        # The bootstrap has no width where all resamples agree, and Tango's
        # interval takes cases for independent.
        low = min(comparison.low, tango_low)
        high = max(comparison.high, tango_high)
        method = f"{comparison.method}; {TANGO}; the wider bounds count"

    return replace(
        comparison,
        method=method,
        low=low,
        high=high,
        tango_low=tango_low,
        tango_high=tango_high,
        b=b,
        c=c,
        mcnemar_p=mcnemar(b, c),
    )


def _with_verdict(comparison: MetricComparison) -> MetricComparison:
    """Add the verdict on non-inferiority: on which side of -MARGIN the interval lies."""
    if comparison.metric in NO_MARGIN:
        return _with_note(comparison, f"no margin is defined for {NO_MARGIN[comparison.metric]}")

    comparison = replace(comparison, margin=MARGIN, verdict=CANNOT_CONCLUDE)
    if comparison.low is None or comparison.high is None:
        return comparison
    # Without the bootstrap there are too few groups, or cases where these have no groups.
    if comparison.bootstrap_low is None:
        return comparison
    if comparison.low == comparison.high:
        note = "every resample gives the same difference, so that the interval has no width"
        return _with_note(comparison, note)

    verdict = verdict_on(comparison.metric, comparison.low, comparison.high)
    return replace(comparison, verdict=verdict)


def _with_note(comparison: MetricComparison, note: str) -> MetricComparison:
    return replace(comparison, note="; ".join(filter(None, [comparison.note, note])))


def discordant(pair: PairedDecisions, included: NDArray[np.bool_]) -> tuple[int, int]:
    """How many of the included cases are right at 4 bits only (b) and at 8 bits only (c)."""
    right_4bit = (pair.at_4bit == pair.truth)[included]
    right_8bit = (pair.at_8bit == pair.truth)[included]
    return int((right_4bit & ~right_8bit).sum()), int((~right_4bit & right_8bit).sum())


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided McNemar p value of b and c discordant cases; 1 where there are none."""
    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def tango_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """95 % score interval of (b - c) / n, a difference of paired proportions.

    Holds with b = c = 0 too.

    Tango, Statistics in Medicine 17 (1998) 891-908: the differences d with
    |b - c - n d| <= z sqrt(n (2 q + d (1 - d))), where q is the maximum likelihood estimate of
    P(right at 8 bits only) under d.
    """
    point = (b - c) / n
    # At -1 and 1 themselves the variance is 0.
    edge = 1 - 1e-9

    def score(d: float) -> float:
        linear = (2 * n - b + c) * d - b - c
        constant = -c * d * (1 - d)
        # The larger root of 2 n q^2 + linear q + constant; rounding can leave less than 0 under it.
        q = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
        return (b - c - n * d) / math.sqrt(max(n * (2 * q + d * (1 - d)), 1e-300))

    # Where even the edge is within z there is no root, and the interval ends at -1 or 1.
    low = -1.0 if score(-edge) < _Z else brentq(lambda d: score(d) - _Z, -edge, max(point, -edge))
    high = 1.0 if score(edge) > -_Z else brentq(lambda d: score(d) + _Z, min(point, edge), edge)
    return float(low), float(high)


def compare_losses(pair: PairedDecisions, losses: Floats) -> MetricComparison:
    """The mean loss of a pair with its 95 % interval; `losses` (cases, 2), in nats."""
    sums = sums_by_unit(pair, np.concatenate([losses, np.ones((len(losses), 1))], axis=1))

    def means(totals: Floats) -> BothSides:
        return BothSides(totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2])

    observed = means(sums.sum(axis=0, keepdims=True))
    units = UnitCounts.of(pair.truth, pair.unit)
    return comparison_of(LOSS, pair, units, observed, means(resampled(sums)).difference)


def compare_auroc(pair: PairedDecisions, p_ed: Floats) -> MetricComparison:
    """The AUROC of emergencies of a pair with its 95 % interval; `p_ed` (cases, 2), the probability
    of ED.

    It is linearised: a resample moves the mean placement of emergencies and that of the other
    cases, and both moves add up.
    """
    emergency = pair.truth == 0
    placed = np.stack([placements(p_ed[:, side], emergency) for side in (0, 1)], axis=1)
    kinds = np.stack([emergency, ~emergency], axis=1)
    parts = [placed * kind[:, None] for kind in kinds.T]
    sums = sums_by_unit(pair, np.concatenate([*parts, kinds], axis=1))

    def means(totals: Floats) -> Floats:
        """Mean placements (tables, kinds, sides); either kind's is the AUROC."""
        by_kind = totals[:, :4].reshape(-1, 2, 2)
        return ratio(by_kind, np.broadcast_to(totals[:, 4:, None], by_kind.shape))

    (of_emergencies, of_others) = means(sums.sum(axis=0, keepdims=True))[0]
    moved = (means(resampled(sums)) - [of_emergencies, of_others]).sum(axis=1)
    differences = of_emergencies[0] - of_emergencies[1] + moved[:, 0] - moved[:, 1]
    observed = BothSides(of_emergencies[:1], of_emergencies[1:])
    units = UnitCounts.of(pair.truth, pair.unit)
    return comparison_of(ED_AUROC, pair, units, observed, differences)
