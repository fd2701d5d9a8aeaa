"""Are the label probabilities true? Expected calibration error, Brier score, and reliability where p(ED) is small.

Under a cost matrix of 100:2 the best threshold on p(ED) is near 0.01, so the reliability rows look closely at the
smallest probabilities, where a single ECE would see nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.judging.inputs import label_codes, label_probabilities
from tasks.judging.intervals import (
    Groups,
    clopper_pearson,
    group_codes,
    percentile_interval,
    resample_totals,
    smallest_unit_count,
)
from tasks.judging.metrics import CLUSTERED, INDEPENDENT, NO_INTERVAL, Metric
from tasks.judging.point_metrics import MIN_UNITS, Floats, Ints
from tasks.runtime.errors import BadInput

ECE_CASES = 300  # below this the ECE of a perfect model is mostly noise
BINS = 10
EDGES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BY_CASE = "bootstrap by case 95 %"
REFLECTED = "reflected "  # put before the bootstrap's name


@dataclass(frozen=True)
class ReliabilityRow:
    """Cases with low <= p(ED) < high (the last row includes 1): mean p(ED) beside the share that was ED, exact 95 %."""

    low: float
    high: float
    n: int
    mean_p_ed: float | None
    ed_share: float | None
    share_low: float | None
    share_high: float | None


def calibration_table(
    labels: Sequence[str],
    p: ArrayLike,
    groups: Groups | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> list[Metric]:
    """Metrics ece (top label), ed_ece, brier (sum over labels, 0 to 2) and ed_brier; p has shape (cases, 3).

    All four share one set of resamples: whole groups, or without groups single cases.
    """
    values, truth = label_probabilities(p), label_codes(labels)
    if values.shape != (len(truth), 3):
        raise BadInput(
            f"There are {len(truth)} labels but probabilities of shape {values.shape}; each case needs both."
        )
    squares = (values - np.eye(3)[truth]) ** 2
    parts = {"brier": squares.sum(axis=1)[:, None], "ed_brier": squares[:, :1]}
    scores = {"ece": values.max(axis=1, initial=0), "ed_ece": values[:, 0]}
    if len(truth) >= ECE_CASES:
        hits = {"ece": values.argmax(axis=1) == truth, "ed_ece": truth == 0}
        parts |= {name: _gaps(scores[name], hits[name]) for name in scores}
    draws = _resample(parts, len(truth), groups, seed, resamples)
    return [
        _metric(name, parts.get(name), draws.get(name), scores.get(name), groups, len(truth), seed)
        for name in ("ece", "ed_ece", "brier", "ed_brier")
    ]


def expected_calibration_error(scores: ArrayLike, hits: ArrayLike) -> float:
    """Case-weighted mean over equal-mass bins of |share of hits - mean score|."""
    return float(_size(_gaps(scores, hits).mean(axis=0)))


def _size(means: Floats) -> Floats:
    """Every metric here is a sum of absolute means: over bins for an ECE, of one column for a Brier score."""
    return np.asarray(np.abs(means).sum(axis=-1), dtype=np.float64)


def _gaps(scores: ArrayLike, hits: ArrayLike) -> Floats:
    """Per case (hit - score) in the column of its bin, shape (cases, bins)."""
    gaps = np.asarray(hits, dtype=np.float64) - np.asarray(scores, dtype=np.float64)
    return np.eye(BINS)[equal_mass_bins(scores)] * gaps[:, None]


def _resample(
    parts: dict[str, Floats], n: int, groups: Groups | None, seed: int, resamples: int
) -> dict[str, Floats]:
    """Resampled values of each metric; nothing when there are too few units to draw from."""
    if smallest_unit_count(n, groups) < MIN_UNITS:
        return {}
    totals = resample_totals(
        np.column_stack([*parts.values(), np.ones(n)]),
        groups=groups,
        seed=seed,
        resamples=resamples,
    )
    ends = np.cumsum([columns.shape[1] for columns in parts.values()])
    means = np.split(totals[:, :-1] / totals[:, -1:], ends[:-1], axis=1)
    return {name: _size(m) for name, m in zip(parts, means, strict=True)}


def _metric(
    name: str,
    columns: Floats | None,
    draws: Floats | None,
    scores: Floats | None,
    groups: Groups | None,
    n: int,
    seed: int,
) -> Metric:
    if columns is None or n == 0:
        why = f"{n} cases, an ECE needs {ECE_CASES}" if columns is None else "no cases"
        return Metric(name, None, None, None, NO_INTERVAL, n, f"not available: {why}")
    value = float(_size(columns.mean(axis=0)))
    bounds = None if draws is None else percentile_interval(draws)
    if bounds is None:
        why = f"fewer than {MIN_UNITS} independent units for a bootstrap"
        return Metric(name, value, None, None, NO_INTERVAL, n, f"no interval: {why}")
    method, note = (BY_CASE, INDEPENDENT) if group_codes(groups, n) is None else (CLUSTERED, None)
    if scores is not None:
        bounds, method = _reflected(value, bounds, scores, seed), REFLECTED + method
    return Metric(name, value, *bounds, method, n, note)


def _reflected(
    value: float, bounds: tuple[float, float], scores: Floats, seed: int
) -> tuple[float, float]:
    """Interval of an ECE. The plain percentile interval never holds the truth for a well calibrated model.

    Noise alone makes an ECE positive, and resampling adds more of it. So the bootstrap is reflected about the estimate
    (basic bootstrap), and reaches down to 0 whenever a perfectly calibrated model would often show as much (consistency
    resampling, Broecker and Smith, 2007). In simulations it held the truth in 87 to 98 of 100 sets.
    """
    low = (
        0.0
        if value <= _ece_of_perfect_calibration(scores, seed)
        else max(0.0, 2 * value - bounds[1])
    )
    return low, max(2 * value - bounds[0], low)


def equal_mass_bins(scores: ArrayLike) -> Ints:
    """Bin (0 to BINS - 1) of each score, with about equally many cases in each; equal scores share a bin."""
    values = np.asarray(scores, dtype=np.float64)
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _ece_of_perfect_calibration(scores: Floats, seed: int, resamples: int = 500) -> float:
    """97.5 % quantile of the ECE that these scores would show if each were the true probability of a hit."""
    rng = np.random.default_rng(seed)
    bins = np.eye(BINS)[equal_mass_bins(scores)]
    gaps = (rng.random((resamples, len(scores))) < scores).astype(np.float64) - scores
    return float(np.quantile(np.abs(gaps @ bins).sum(axis=1) / len(scores), 0.975))


def reliability_rows(
    labels: Sequence[str], p_ed: ArrayLike, edges: Sequence[float] = EDGES
) -> list[ReliabilityRow]:
    """Reliability of p(ED), one row per bin of `edges`, narrow near 0; a bin without cases keeps its row, with None."""
    scores, is_ed = np.asarray(p_ed, dtype=np.float64), label_codes(labels) == 0
    if scores.shape != is_ed.shape or not np.isfinite(scores).all():
        raise BadInput("Reliability needs one finite p(ED) for each label: score the set again.")
    bins = np.searchsorted(np.asarray(edges[1:-1]), scores, side="right")
    return [
        _reliability_row(low, high, scores[bins == i], is_ed[bins == i])
        for i, (low, high) in enumerate(pairwise(edges))
    ]


def _reliability_row(
    low: float, high: float, scores: Floats, is_ed: NDArray[np.bool_]
) -> ReliabilityRow:
    n, hits = len(scores), int(is_ed.sum())
    if n == 0:
        return ReliabilityRow(low, high, 0, None, None, None, None)
    return ReliabilityRow(low, high, n, float(scores.mean()), hits / n, *clopper_pearson(hits, n))
