"""Statistics of a matched pair: the same cases decided by the 4-bit and by the 8-bit model.

Labels and decisions are integers (0 ED, 1 GP, 2 HOME). Every difference is 4 bits minus 8 bits. Resampling draws whole
groups (conditions), since cases of one condition are not independent; without groups it draws cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 2000
SEED = 42
MIN_UNITS = (
    10  # fewer groups or cases than this, and a percentile bootstrap is too narrow to be shown
)
MAX_UNDEFINED = (
    0.05  # largest share of resamples in which a metric may be undefined (a class not drawn)
)
MARGIN = 0.02  # a loss of two points is the most that still counts as "not inferior"
PROPORTIONS = ("accuracy", "ed_recall")
METRICS = (*PROPORTIONS, "ed_f2", "macro_f1", "expected_cost")
_Z = float(norm.ppf(0.975))
TANGO = "Tango score interval (assumes independent cases)"


@dataclass(frozen=True)
class Decided:
    """N cases decided twice by one rule, with the unit that each case is resampled with (0 .. units-1)."""

    label: Ints
    four: Ints
    eight: Ints
    unit: Ints
    grouped: bool


@dataclass(frozen=True)
class Comparison:
    """One metric of a pair; None where it is not available, for the reason in `note`. Fields as in `pair_metric`."""

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


def compare(pair: Decided, cost: Array | None) -> list[Comparison]:
    """All METRICS of a pair with 95 % intervals. `cost` (3, 3): row = truth, column = decision; None: no cost."""
    counts = np.concatenate(
        [_one_hot(pair.label, pair.four), _one_hot(pair.label, pair.eight)], axis=1
    )
    sums = np.zeros((int(pair.unit.max()) + 1, 18))
    np.add.at(sums, pair.unit, counts)
    point_4, point_8 = _both(sums.sum(axis=0, keepdims=True), cost)
    drawn_4, drawn_8 = _both(resampled(sums), cost)
    return [
        _comparison(
            name,
            pair,
            float(point_4[name][0]),
            float(point_8[name][0]),
            drawn_4[name] - drawn_8[name],
        )
        for name in METRICS
    ]


def not_available(cases: int, reason: str) -> list[Comparison]:
    """METRICS of a pair that cannot be compared by this rule."""
    return [
        Comparison(name, "none", cases, None, note=f"not available: {reason}") for name in METRICS
    ]


def _one_hot(label: Ints, decision: Ints) -> Array:
    """(N, 9): the cell of the confusion matrix that each case falls into."""
    cells: Array = np.eye(9)[label * 3 + decision]
    return cells


def _both(sums: Array, cost: Array | None) -> tuple[dict[str, Array], dict[str, Array]]:
    return figures(sums[:, :9].reshape(-1, 3, 3), cost), figures(
        sums[:, 9:].reshape(-1, 3, 3), cost
    )


def resampled(sums: Array) -> Array:
    """(RESAMPLES, K) totals of bootstrap samples of the rows of `sums` (U, K): U rows drawn with replacement, seeded."""
    generator, units = np.random.default_rng(SEED), len(sums)
    totals = []
    for _ in range(RESAMPLES // 100):  # in blocks, so that memory stays small with many cases
        drawn = generator.integers(0, units, size=(100, units))
        flat = (drawn + units * np.arange(100)[:, None]).ravel()
        weights = np.bincount(flat, minlength=100 * units).reshape(100, units).astype(np.float64)
        totals.append(weights @ sums)
    return np.concatenate(totals)


def figures(confusion: Array, cost: Array | None) -> dict[str, Array]:
    """METRICS of confusion matrices (R, 3, 3; row = truth), each (R,); NaN where a metric has no meaning.

    ED figures need an ED case, macro F1 averages the classes that any of the matrices has cases of (so a resample
    without one of them has none): as tasks/judging/metrics.py.
    """
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, chosen, total = (
        confusion.sum(axis=2),
        confusion.sum(axis=1),
        confusion.sum(axis=(1, 2)),
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right[:, 0] / truth[:, 0]
        f2 = np.where(truth[:, 0] > 0, 5 * right[:, 0] / (4 * truth[:, 0] + chosen[:, 0]), np.nan)
        f1 = np.where(truth > 0, 2 * right / (truth + chosen), np.nan)
    held = truth.any(axis=0)
    spent = (
        np.full(len(confusion), np.nan)
        if cost is None
        else (confusion * cost).sum(axis=(1, 2)) / total
    )
    return {
        "accuracy": right.sum(axis=1) / total, "ed_recall": recall, "ed_f2": f2,
        "macro_f1": f1[:, held].mean(axis=1), "expected_cost": spent,
    }  # fmt: skip


def _comparison(name: str, pair: Decided, four: float, eight: float, drawn: Array) -> Comparison:
    kept = pair.label == 0 if name.startswith("ed_") else np.ones(len(pair.label), dtype=bool)
    units = len(np.unique(pair.unit[kept]))
    unit = "groups" if pair.grouped else "cases (assumes independent cases)"
    method = f"paired bootstrap of {units} {unit}, {RESAMPLES} resamples, seed {SEED}"
    empty = Comparison(name, method, int(kept.sum()), units if pair.grouped else None)
    if math.isnan(four) or math.isnan(eight):
        reason = "no cost matrix was given" if name == "expected_cost" else "no ED case in the set"
        return replace(empty, note=f"not available: {reason}")
    found = replace(empty, value_4bit=four, value_8bit=eight, difference=four - eight)
    if why := _why_no_bootstrap(name, pair, units, unit, drawn):
        found = replace(found, method="none", note=f"no bootstrap: {why}")
    else:
        low, high = (float(x) for x in np.nanpercentile(drawn, [2.5, 97.5]))
        found = replace(found, low=low, high=high, bootstrap_low=low, bootstrap_high=high)
    return _judged(_with_exact_tests(found, pair, kept) if name in PROPORTIONS else found)


def _why_no_bootstrap(name: str, pair: Decided, units: int, unit: str, drawn: Array) -> str | None:
    """Why resampling `units` of `unit` says too little about a metric, or None."""
    if name == "macro_f1":  # as sure as its rarest class is
        units = min(
            len(np.unique(pair.unit[pair.label == label])) for label in np.unique(pair.label)
        )
        unit += " of the rarest class"
    if units < MIN_UNITS:
        return f"{units} {unit} are too few (it needs {MIN_UNITS})"
    return "undefined in too many resamples" if np.isnan(drawn).mean() > MAX_UNDEFINED else None


def _with_exact_tests(found: Comparison, pair: Decided, kept: NDArray[np.bool_]) -> Comparison:
    """Add McNemar's test and the Tango interval, which has a width even where no case was decided differently."""
    b, c = discordant(pair, kept)
    tango = tango_interval(b, c, found.n)
    low, high = (
        tango
        if found.low is None or found.high is None
        else (min(found.low, tango[0]), max(found.high, tango[1]))
    )
    both = TANGO if found.low is None else f"{found.method}; {TANGO}; the wider bounds count"
    return replace(
        found,
        low=low,
        high=high,
        tango_low=tango[0],
        tango_high=tango[1],
        b=b,
        c=c,
        mcnemar_p=mcnemar(b, c),
        method=both,
    )


def _judged(found: Comparison) -> Comparison:
    """Add the non-inferiority verdict: which side of -MARGIN the interval lies on, if on one and if groups allow one."""
    if found.metric == "expected_cost":
        return replace(found, note=_joined(found.note, "no margin is defined for a cost"))
    found = replace(found, margin=MARGIN, verdict="cannot conclude")
    if found.low is None or found.high is None:
        return found
    if (
        found.groups is not None and found.bootstrap_low is None
    ):  # what is left assumes that cases are independent
        return found
    if found.low == found.high:
        note = "every resample gives the same difference, so that the interval has no width"
        return replace(found, note=_joined(found.note, note))
    if found.low > -MARGIN:
        return replace(found, verdict="not inferior")
    return replace(found, verdict="inferior") if found.high < -MARGIN else found


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)


def discordant(pair: Decided, kept: NDArray[np.bool_]) -> tuple[int, int]:
    """How many of the kept cases are right at 4 bits only (b) and at 8 bits only (c)."""
    four, eight = (pair.four == pair.label)[kept], (pair.eight == pair.label)[kept]
    return int((four & ~eight).sum()), int((~four & eight).sum())


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided McNemar p value of b and c discordant cases; 1 where there are none."""
    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def tango_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """95 % score interval of (b - c) / n, the difference of two paired proportions; holds with b = c = 0 too.

    Tango, Statistics in Medicine 17 (1998) 891-908: the differences d with |b - c - n d| <= z sqrt(n (2 q + d (1 - d))),
    q being the maximum likelihood estimate of P(right at 8 bits only) under d.
    """
    point, edge = (b - c) / n, 1 - 1e-9

    def score(d: float) -> float:
        linear, constant = (2 * n - b + c) * d - b - c, -c * d * (1 - d)
        q = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
        return (b - c - n * d) / math.sqrt(max(n * (2 * q + d * (1 - d)), 1e-300))

    low = -1.0 if score(-edge) < _Z else brentq(lambda d: score(d) - _Z, -edge, max(point, -edge))
    high = 1.0 if score(edge) > -_Z else brentq(lambda d: score(d) + _Z, min(point, edge), edge)
    return float(low), float(high)
