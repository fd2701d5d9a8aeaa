"""Is the review flag of Monte Carlo dropout worth its passes?

It is compared with scores that a single pass gives for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.judging.inputs import label_codes, label_probabilities
from tasks.judging.intervals import Groups, percentile_interval, unit_codes
from tasks.judging.point_metrics import MIN_UNITS, Floats, Ints
from tasks.judging.risk_coverage import FlagQuality, aurc, flag_most_uncertain, judge_flag
from tasks.judging.uncertainty import entropy_nats

FLAG = "vote_entropy"
MAX_PROBABILITY = "max_probability"
SINGLE_PASS = "single_pass_entropy"
RESAMPLES = 500


@dataclass(frozen=True)
class JudgedFlag:
    """One score by which cases can be flagged, compared with the vote entropy.

    The differences are this score's AURC minus the vote entropy's: positive if it is worse.
    """

    score: str
    quality: FlagQuality
    aurc: float
    aurc_difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    verdict: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Outcomes:
    """What became of each case, arrays of shape (cases,).

    A missed emergency is an ED case decided otherwise; `units` are what a bootstrap draws.
    """

    wrong: NDArray[np.bool_]
    missed_ed: NDArray[np.bool_]
    units: Ints

    @classmethod
    def of(cls, labels: Sequence[str], decisions: Sequence[str], groups: Groups | None) -> Outcomes:
        truth = label_codes(labels)
        decision_codes = label_codes(decisions)
        missed_ed = (truth == 0) & (decision_codes != 0)
        return cls(truth != decision_codes, missed_ed, unit_codes(groups, len(truth)))

    def judge(self, flag: Floats) -> FlagQuality:
        return judge_flag(flag, self.wrong, self.missed_ed)

    def why_no_interval(self) -> str | None:
        """Why no difference of scores can be resampled, or None."""
        # Without an error, or without a right case, every score ties.
        if not self.wrong.any():
            return "no case was decided wrongly"
        if self.wrong.all():
            return "every case was decided wrongly"
        if len(np.unique(self.units)) < MIN_UNITS:
            return f"fewer than {MIN_UNITS} units"
        return None


def judge_review(
    flagged: ArrayLike,
    vote_entropy: ArrayLike,
    p: ArrayLike,
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    seed: int = 0,
) -> list[JudgedFlag]:
    """The vote entropy's flag and its rivals at equal load, on the cases with dropout passes.

    `p` (cases, 3): the deterministic pass; `decisions`: those of the primary rule. A rival is
    better, or worse, where the 95 % bootstrap interval (whole groups resampled) of the difference
    of the areas under the risk-coverage curves excludes zero; otherwise the data cannot tell.
    """
    scores = _scores(np.asarray(vote_entropy, dtype=np.float64), label_probabilities(p))
    outcomes = Outcomes.of(labels, decisions, groups)
    areas = {name: aurc(score, outcomes.wrong) for name, score in scores.items()}
    no_interval = outcomes.why_no_interval()
    resampled = {} if no_interval else _resampled_areas(scores, outcomes, seed)

    flag = np.asarray(flagged, dtype=np.float64)
    flags = [JudgedFlag(FLAG, outcomes.judge(flag), areas[FLAG])]
    for name in (MAX_PROBABILITY, SINGLE_PASS):
        # As many cases as the vote entropy flags, so that the two are compared at one load.
        rival_flag = flag_most_uncertain(scores[name], float(flag.mean()))
        quality = outcomes.judge(rival_flag)
        rival = JudgedFlag(name, quality, areas[name], areas[name] - areas[FLAG])
        if no_interval:
            rival = replace(rival, verdict="cannot tell", note=f"no interval: {no_interval}")
        else:
            rival = _with_interval(rival, resampled[name] - resampled[FLAG])
        flags.append(rival)

    return flags


def _scores(vote_entropy: Floats, probabilities: Floats) -> dict[str, Floats]:
    """The uncertainty of each case by each score, (cases,): the vote entropy and its rivals."""
    return {
        FLAG: vote_entropy,
        MAX_PROBABILITY: 1 - probabilities.max(axis=1),
        SINGLE_PASS: entropy_nats(probabilities),
    }


def _resampled_areas(scores: dict[str, Floats], outcomes: Outcomes, seed: int) -> dict[str, Floats]:
    """AURC of each score on the same bootstrap samples of whole units, each (RESAMPLES,)."""
    rng = np.random.default_rng(seed)
    units = outcomes.units
    members = [np.flatnonzero(units == unit) for unit in np.unique(units)]

    areas: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(RESAMPLES):
        drawn_units = rng.integers(0, len(members), len(members))
        cases = np.concatenate([members[unit] for unit in drawn_units])
        for name, values in scores.items():
            areas[name].append(aurc(values[cases], outcomes.wrong[cases]))

    return {name: np.array(values) for name, values in areas.items()}


def _with_interval(rival: JudgedFlag, differences: Floats) -> JudgedFlag:
    """Add the interval of the rival's AURC minus the vote entropy's, and which score is better."""
    interval = percentile_interval(differences)
    assert interval is not None  # every resample has an area
    low, high = interval

    verdict = "cannot tell"
    if low > 0:
        verdict = f"{FLAG} is better"
    elif high < 0:
        verdict = f"{rival.score} is better"

    return replace(rival, difference_low=low, difference_high=high, verdict=verdict)
