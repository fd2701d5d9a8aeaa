"""Is the review flag of Monte Carlo dropout worth its passes? Judged against scores that one pass gives for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.inputs import label_codes, label_probabilities
from tasks.judging.intervals import Groups, percentile_interval, unit_codes
from tasks.judging.point_metrics import MIN_UNITS, Floats, Ints
from tasks.judging.risk_coverage import FlagQuality, aurc, flag_most_uncertain, judge_flag
from tasks.judging.uncertainty import entropy_nats

FLAG, MAX_PROBABILITY, SINGLE_PASS = "vote_entropy", "max_probability", "single_pass_entropy"
RESAMPLES = 500


@dataclass(frozen=True)
class JudgedFlag:
    """One way to flag cases; the differences are this score's AURC minus the vote entropy's (positive: it is worse)."""

    score: str
    quality: FlagQuality
    aurc: float
    aurc_difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    verdict: str | None = None
    note: str | None = None


def judge_review(
    flagged: ArrayLike, vote_entropy: ArrayLike, p: ArrayLike, labels: Sequence[str], decisions: Sequence[str],
    groups: Groups | None = None, seed: int = 0,
) -> list[JudgedFlag]:  # fmt: skip
    """The vote entropy's flag and its two rivals at equal load, on the cases that went through dropout.

    `p` (cases, 3): the deterministic pass; `decisions`: those that are shipped. A missed emergency is an ED case
    decided otherwise. A rival is better, or worse, where the 95 % bootstrap interval of the difference of the areas
    under the risk-coverage curves (whole groups resampled) leaves zero out; else the data cannot tell.
    """
    values, truth, decided = label_probabilities(p), label_codes(labels), label_codes(decisions)
    wrong, missed = truth != decided, (truth == 0) & (decided != 0)
    flag = np.asarray(flagged, dtype=np.float64)
    scores = {
        FLAG: np.asarray(vote_entropy, dtype=np.float64),
        MAX_PROBABILITY: 1 - values.max(axis=1),
        SINGLE_PASS: entropy_nats(values),
    }
    judged = [JudgedFlag(FLAG, judge_flag(flag, wrong, missed), aurc(scores[FLAG], wrong))]
    units = unit_codes(groups, len(truth))
    draws = _resampled_areas(scores, wrong, units, seed) if _enough(wrong, units) else {}
    for name in (MAX_PROBABILITY, SINGLE_PASS):
        quality = judge_flag(flag_most_uncertain(scores[name], float(flag.mean())), wrong, missed)
        area = aurc(scores[name], wrong)
        judged.append(_compared(name, quality, area, judged[0].aurc, draws, wrong))
    return judged


def _enough(wrong: Floats, units: Ints) -> bool:
    """Enough units in all, and both kinds of case: without an error, or without a right case, every score ties."""
    return len(np.unique(units)) >= MIN_UNITS and 0 < wrong.sum() < len(wrong)


def _resampled_areas(
    scores: dict[str, Floats], wrong: Floats, units: Ints, seed: int
) -> dict[str, Floats]:
    """AURC of each score on the same bootstrap samples of whole units, each (RESAMPLES,)."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(RESAMPLES):
        cases = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        for name, values in scores.items():
            drawn[name].append(aurc(values[cases], wrong[cases]))
    return {name: np.array(values) for name, values in drawn.items()}


def _compared(
    name: str,
    quality: FlagQuality,
    area: float,
    reference: float,
    draws: dict[str, Floats],
    wrong: Floats,
) -> JudgedFlag:
    difference = area - reference
    if not draws:
        share = (
            "no case"
            if not wrong.any()
            else "every case"
            if wrong.all()
            else f"fewer than {MIN_UNITS} units"
        )
        note = f"no interval: {share}" + (
            "" if share.startswith("fewer") else " was decided wrongly"
        )
        return JudgedFlag(name, quality, area, difference, None, None, "cannot tell", note)
    bounds = percentile_interval(draws[name] - draws[FLAG])
    assert bounds is not None  # every resample has an area
    verdict = "cannot tell"
    if bounds[0] > 0:
        verdict = f"{FLAG} is better"
    elif bounds[1] < 0:
        verdict = f"{name} is better"
    return JudgedFlag(name, quality, area, difference, *bounds, verdict)
