"""What a test set can conclude about 4 against 8 bits, before a model is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.stats import norm

from flows.power.studies import SEARCHED, Studies
from tasks.judging.point_metrics import MIN_UNITS
from tasks.judging.study_draws import PlannedSet
from warehouse.comparison.resampling import MARGIN
from warehouse.comparison.verdicts import VerdictShares

POWER = 0.8
NEAR = 0.01  # a share this near to POWER is POWER
NEAR_ENOUGH = 0.05  # where the steps are used up
LEAST_SPREAD = 1e-3  # of a difference: two models that decide alike have none, and no step
STEPS = 7
MOST_CASES = 1_024.0  # times as many cases
LEAST_CASES = 1 / 16
DRAWN_GROUPS = 1_000
MOST_GROUPS = 50_000
_BOUND = float(norm.ppf(0.975))
_POWER = float(norm.ppf(POWER))


@dataclass(frozen=True)
class PlannedSize:
    """A test set: cases, groups (None where cases have none) and emergencies."""

    cases: int
    groups: int | None
    emergencies: int

    @classmethod
    def of(cls, planned: PlannedSet) -> PlannedSize:
        return cls(planned.total, planned.groups, planned.emergencies)


@dataclass(frozen=True)
class MetricOutlook:
    """What a test set can conclude on one metric. True differences are 4 bits minus 8 bits.

    `groups`: of the planned set. `obstacle`: why it can conclude nothing; the rest is then None.
    `at_zero`: shares of the verdicts without a true difference; `as_measured`: at the difference
    `measured` of the pair in the warehouse. `not_inferior_from`: the lowest true difference at
    which POWER of the studies read "not inferior"; `inferior_from`: the highest at which POWER of
    them read "inferior"; None where decisions cannot differ as much. `enough_cases`: the size at
    which POWER of the studies read "not inferior" without a true difference, by more or fewer cases
    of the same groups; `enough_groups`: by more groups, where no number of cases suffices.
    """

    metric: str
    groups: int | None
    obstacle: str | None = None
    at_zero: VerdictShares | None = None
    measured: float | None = None
    as_measured: VerdictShares | None = None
    not_inferior_from: float | None = None
    inferior_from: float | None = None
    enough_cases: PlannedSize | None = None
    enough_groups: PlannedSize | None = None


def outlook(metric: str, studies: Studies) -> MetricOutlook:
    """What the planned set can conclude on accuracy, ed_recall or macro_f1."""
    if obstacle := _obstacle(metric, studies.planned):
        return MetricOutlook(metric, studies.planned.groups, obstacle)

    measured_difference = studies.measured(metric)
    enough_cases = _enough_cases(metric, studies)
    return MetricOutlook(
        metric,
        studies.planned.groups,
        at_zero=studies.shares(metric, 0.0),
        measured=measured_difference,
        as_measured=None if measured_difference is None else studies.shares(metric, None),
        not_inferior_from=_decided_from(metric, "not_inferior", 1, studies),
        inferior_from=_decided_from(metric, "inferior", -1, studies),
        enough_cases=enough_cases,
        enough_groups=None if enough_cases else _enough_groups(metric, studies),
    )


def _obstacle(metric: str, planned: PlannedSet) -> str | None:
    """Why no study of this size can conclude anything, or None."""
    if metric == "ed_recall" and planned.emergencies == 0:
        return "no test case is an emergency"

    groups_of = (planned.cases > 0).sum(axis=0) if planned.grouped else planned.cases.sum(axis=0)
    behind, of_what = {
        "accuracy": (planned.groups or planned.total, ""),
        "ed_recall": (int(groups_of[0]), " with emergencies"),
        "macro_f1": (int(min(count for count in groups_of if count)), " of the rarest label"),
    }[metric]
    if behind >= MIN_UNITS:
        return None

    kind = "groups" if planned.grouped else "cases"
    return f"{behind} {kind}{of_what} conclude nothing; it takes at least {MIN_UNITS}"


def _decided_from(metric: str, verdict: str, sign: int, studies: Studies) -> float | None:
    """The true difference from which on POWER of the studies read `verdict`, upwards or downwards."""
    spread = max(studies.spread(metric), LEAST_SPREAD)

    def share(difference: float) -> float | None:
        shares = studies.shares(metric, difference, most=SEARCHED)
        return None if shares is None else getattr(shares, verdict)

    start = sign * (_BOUND + _POWER) * spread - MARGIN
    return _solve(share, start, lambda quantile: sign * quantile * spread)


def _enough_cases(metric: str, studies: Studies) -> PlannedSize | None:
    """The least size that gives POWER at a true difference of 0, with more or fewer cases of the
    same groups.
    """
    # The variance is that between groups, and a part that falls with the number of cases.
    variances = [studies.spread(metric, studies.with_cases(factor)) ** 2 for factor in (1.0, 16.0)]
    # 16 times the cases leave a sixteenth of this part, so the two differ by 15/16 of it.
    within_variance = max(variances[0] - variances[1], 1e-12) * 16 / 15
    allowed_variance = (MARGIN / (_BOUND + _POWER)) ** 2
    between = max(variances[0] - within_variance, 0.0)
    factor = MOST_CASES
    if allowed_variance > between:
        factor = within_variance / (allowed_variance - between)

    def share(logarithm: float) -> float | None:
        # Rounded, so that a size that is asked for twice is drawn once.
        planned = studies.with_cases(round(math.exp(logarithm), 3))
        shares = studies.shares(metric, 0.0, planned, SEARCHED)
        return None if shares is None else shares.not_inferior

    start = math.log(min(max(factor, LEAST_CASES), MOST_CASES))
    place = _solve(share, start, _step_of_size, (math.log(LEAST_CASES), math.log(MOST_CASES)))
    if place is None:
        return None
    factor = round(math.exp(place), 3)
    return PlannedSize.of(studies.with_cases(factor))


def _enough_groups(metric: str, studies: Studies) -> PlannedSize | None:
    """The least size that gives POWER at a true difference of 0, with more groups as large."""
    groups = studies.planned.groups
    if groups is None:
        return None

    most = max(groups, DRAWN_GROUPS)

    def share(logarithm: float) -> float | None:
        planned = studies.with_groups(round(math.exp(logarithm)))
        shares = studies.shares(metric, 0.0, planned, SEARCHED)
        return None if shares is None else shares.not_inferior

    limits = (math.log(groups), math.log(most))
    spread = max(studies.spread(metric), LEAST_SPREAD)
    log_groups = math.log(groups) + 2 * math.log(spread * (_BOUND + _POWER) / MARGIN)
    place = _solve(share, min(max(log_groups, limits[0]), limits[1]), _step_of_size, limits)
    count = _extrapolated(most, share(limits[1])) if place is None else round(math.exp(place))

    return None if count is None else PlannedSize.of(studies.with_groups(count))


def _step_of_size(quantile: float) -> float:
    """How far off the logarithm of a size is: 1 / sqrt(size) is in proportion to the spread."""
    return 2 * quantile / (_BOUND + _POWER)


def _extrapolated(groups: int, share: float | None) -> int | None:
    """Groups that give POWER where so many give `share`: the spread falls with their root, and the
    difference that is seen is normal with so many. None beyond MOST_GROUPS.
    """
    if share is None or _quantile(share) <= -_BOUND:
        return None
    count = groups * ((_BOUND + _POWER) / (_BOUND + _quantile(share))) ** 2
    return round(count) if count <= MOST_GROUPS else None


def _solve(
    share: Callable[[float], float | None],
    start: float,
    step: Callable[[float], float],
    limits: tuple[float, float] = (-1.0, 1.0),
) -> float | None:
    """Where a share of studies is POWER, from a first guess on.

    `step` says how far off a place is whose share is so many normal quantiles below POWER. None if
    the share stays below POWER at the limit, or is None there, since decisions cannot differ as
    much; and if it is not near POWER after STEPS.
    """
    place = start
    below = None
    above = None
    for _ in range(STEPS):
        reached = share(place)
        if reached is None:
            return None

        missing = _POWER - _quantile(reached)
        if abs(reached - POWER) <= NEAR:
            return place

        # Between two places the quantile is nearly a straight line.
        if missing > 0:
            below = (place, missing)
        else:
            above = (place, missing)

        further = _between(below, above) if below and above else place + step(missing)
        further = min(max(further, limits[0]), limits[1])
        if further == place:
            return None if missing > 0 else place

        place = further

    reached = share(place)
    is_near = reached is not None and abs(reached - POWER) <= NEAR_ENOUGH
    return place if is_near else None


def _between(below: tuple[float, float], above: tuple[float, float]) -> float:
    """Where the straight line through two places, each with its distance from POWER, is zero."""
    part = below[1] / (below[1] - above[1])
    # Kept off both ends, so that every step shortens the bracket.
    return below[0] + min(max(part, 0.1), 0.9) * (above[0] - below[0])


def _quantile(share: float) -> float:
    """Standard normal quantile of a share, within what a search can tell."""
    least = 1 / SEARCHED
    bounded = min(max(share, least), 1 - least)
    return float(norm.ppf(bounded))
