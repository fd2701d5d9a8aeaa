"""Monte Carlo dropout passes per case: votes, entropies, mutual information; and what the review flag
that they give is worth, by risk-coverage curves.

Entropies are in nats: ln 3 = 1.0986 is the maximum of three labels. Method: Gal and Ghahramani
(2016).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from tasks.judging.intervals import Groups, percentile_interval, unit_codes
from tasks.judging.metrics import label_probabilities, share_metric
from tasks.judging.point_metrics import MIN_UNITS, Floats, Row, Rows, label_codes
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

FLAG = "vote_entropy"
MAX_PROBABILITY = "max_probability"
SINGLE_PASS = "single_pass_entropy"
RESAMPLES = 500


def entropy_nats(shares: ArrayLike) -> Floats:
    """-sum p ln p over the last axis, 0 ln 0 = 0."""
    values = np.asarray(shares, dtype=np.float64)
    return np.asarray(entr(values).sum(axis=-1))


def summarise_passes(p: ArrayLike, review_entropy: float = 0.3) -> Rows:
    """Columns of the table `mc_dropout` for each case, from label probabilities of shape (passes,
    cases, 3); at least two passes, which are distinct (`passes_are_distinct`).

    confidence: share of the majority's votes, with its binomial standard error; entropy_nats: of the
    vote shares; predictive_entropy_nats: H[E p]; mutual_information_nats: H[E p] - E[H p], how much
    the passes disagree; review: vote entropy above `review_entropy` nats (0.3: at least 5 dissenting
    votes of 50). A tie, in a pass or in the votes, goes to the more urgent label.
    """
    values = label_probabilities(p)
    passes, cases = values.shape[:2]

    chosen = values.argmax(axis=-1)
    votes = np.stack([(chosen == i).sum(axis=0) for i in range(len(LABELS))], axis=-1)
    confidence = votes.max(axis=1) / passes
    vote_entropy = entropy_nats(votes / passes)
    mean = values.mean(axis=0)
    predictive = entropy_nats(mean)
    # Rounding can make the difference -1e-17.
    information = np.maximum(predictive - entropy_nats(values).mean(axis=0), 0.0)

    return [
        {
            "passes": passes,
            "majority": LABELS[int(votes[i].argmax())],
            "confidence": float(confidence[i]),
            "confidence_se": float(np.sqrt(confidence[i] * (1 - confidence[i]) / passes)),
            "entropy_nats": float(vote_entropy[i]),
            "p_ed": float(mean[i, 0]),
            "p_gp": float(mean[i, 1]),
            "p_home": float(mean[i, 2]),
            "predictive_entropy_nats": float(predictive[i]),
            "mutual_information_nats": float(information[i]),
            "review": bool(vote_entropy[i] > review_entropy),
        }
        for i in range(cases)
    ]


def passes_are_distinct(log_p: ArrayLike) -> bool:
    """Whether no two passes of log-probabilities (passes, cases, 3) are equal: dropout is on, and no
    mask is used twice. Raises BadInput for a value that is not finite.

    Probabilities would not do: a confident model's are rounded to 1 and 0 in every pass.
    """
    values = np.asarray(log_p)
    if not np.isfinite(values).all():
        raise BadInput(
            "Dropout passes hold NaN or infinity: train again with a lower learning rate or scale."
        )
    return len(np.unique(values.reshape(len(values), -1), axis=0)) == len(values)


def aurc(uncertainty: ArrayLike, wrong: ArrayLike) -> float:
    """Area under the risk-coverage curve: the error rate among the k least uncertain cases, on
    average over k = 1..n (Geifman et al., 2019); lower is better. Ties count with their average over
    all orders. Both arguments have shape (cases,).
    """
    # Tied cases share the mean error of their tie.
    codes = np.unique(np.asarray(uncertainty), return_inverse=True)[1]
    mean_error = np.bincount(codes, weights=np.asarray(wrong)) / np.bincount(codes)
    risk = np.cumsum(mean_error[np.sort(codes)]) / np.arange(1, len(codes) + 1)
    return float(risk.mean())


def flag_most_uncertain(uncertainty: ArrayLike, load: float) -> Floats:
    """Weights in [0, 1], shape (cases,), that flag the share `load` of most uncertain cases; tied
    cases share the remaining load equally.
    """
    scores = np.asarray(uncertainty, dtype=np.float64)
    above = (scores[None, :] > scores[:, None]).sum(axis=1)
    tied = (scores[None, :] == scores[:, None]).sum(axis=1)
    return np.asarray(np.clip((load * len(scores) - above) / tied, 0.0, 1.0))


def judge_review(
    flagged: ArrayLike,
    vote_entropy: ArrayLike,
    p: ArrayLike,
    labels: Sequence[str],
    decisions: Sequence[str],
    groups: Groups | None = None,
    seed: int = 0,
) -> Rows:
    """Is the review flag of Monte Carlo dropout worth its passes? A row of the table `review_flag`
    for the vote entropy's flag and for each rival at equal load, a score that a single pass gives
    for nothing, on the cases with dropout passes.

    `p` (cases, 3): the deterministic pass; `decisions`: those of the primary rule. A verdict takes
    a 95 % bootstrap interval (whole groups resampled) that excludes zero, of the difference of the
    areas under the risk-coverage curves: the rival's minus the vote entropy's, positive if the
    rival is worse. A flag catches shares of the errors and of the missed emergencies (ED cases
    decided otherwise); one drawn at random catches its load.
    """
    probabilities = label_probabilities(p)
    scores = {
        FLAG: np.asarray(vote_entropy, dtype=np.float64),
        MAX_PROBABILITY: 1 - probabilities.max(axis=1),
        SINGLE_PASS: entropy_nats(probabilities),
    }
    truth = label_codes(labels)
    decision_codes = label_codes(decisions)
    wrong = truth != decision_codes
    missed = (truth == 0) & (decision_codes != 0)
    units, _ = unit_codes(groups, len(truth))
    areas = {name: aurc(score, wrong) for name, score in scores.items()}

    # Without an error, or without a right case, every score ties.
    reason = None
    if not wrong.any():
        reason = "no case was decided wrongly"
    elif wrong.all():
        reason = "every case was decided wrongly"
    elif len(np.unique(units)) < MIN_UNITS:
        reason = f"fewer than {MIN_UNITS} units"

    resampled: dict[str, list[float]] = {name: [] for name in scores}
    if reason is None:
        rng = np.random.default_rng(seed)
        members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
        for _ in range(RESAMPLES):
            drawn_units = rng.integers(0, len(members), len(members))
            cases = np.concatenate([members[unit] for unit in drawn_units])
            for name, values in scores.items():
                resampled[name].append(aurc(values[cases], wrong[cases]))

    load = float(np.mean(np.asarray(flagged, dtype=np.float64)))
    rows = []
    for name, score in scores.items():
        row: Row = {
            "score": name,
            "aurc": areas[name],
            "aurc_difference": None,
            "difference_low": None,
            "difference_high": None,
            "verdict": None,
            "note": None,
        }
        flag = np.asarray(flagged, dtype=np.float64)
        if name != FLAG:
            # As many cases as the vote entropy flags, so that the two are compared at one load.
            flag = flag_most_uncertain(score, load)
            row |= {"aurc_difference": areas[name] - areas[FLAG], "verdict": "cannot tell"}
            ends = percentile_interval(np.subtract(resampled[name], resampled[FLAG]))
            if ends is None:
                row["note"] = f"no interval: {reason}"
            else:
                row["difference_low"], row["difference_high"] = ends
                if ends[0] > 0:
                    row["verdict"] = f"{FLAG} is better"
                elif ends[1] < 0:
                    row["verdict"] = f"{name} is better"

        row |= {
            "load": float(flag.mean()),
            "error_kept": _share((1 - flag) * wrong, 1 - flag),
            "error_flagged": _share(flag * wrong, flag),
            "missed_ed": int(missed.sum()),
        }
        for column, events in (("wrong_flagged", wrong), ("missed_ed_flagged", missed)):
            caught = share_metric(column, flag, groups, seed, among=events)
            row |= {
                column: caught["value"],
                f"{column}_low": caught["low"],
                f"{column}_high": caught["high"],
            }
        rows.append(row)

    return rows


def _share(part: Floats, whole: Floats) -> float | None:
    return float(part.sum() / whole.sum()) if whole.sum() > 1e-9 else None
