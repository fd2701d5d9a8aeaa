"""Two sides of trained models on the same cases: their metrics, the difference, its interval, and what
the interval says.

A pair is one training a side, a recipe's seeds are several, and a precision against its reference is
the adapters of a recipe at both. `value_4bit` is the first side, which may be another precision than
4 bits, and `value_8bit` the second. Chance in `calibration`, from which thresholds come, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np

from tasks.judging.point_metrics import MIN_UNITS, Costs, Floats
from tasks.spec import ED_AUROC
from warehouse.comparison.cells import OF_EMERGENCIES, Cells, JudgedCases, Measured
from warehouse.comparison.crossed import (
    CANNOT_CONCLUDE,
    LOWER_IS_BETTER,
    MARGIN,
    crossed,
    needed,
    verdict_on,
)

PROPORTIONS = ("accuracy", "ed_recall")
METRICS = (*PROPORTIONS, "ed_f2", "macro_f1", "over_triage")
COST, LOSS = "expected_cost", "loss"
NO_MARGIN = (COST, LOSS)
OF_PROBABILITIES = (ED_AUROC, LOSS)  # which depend on no rule, and stand under the argmax
_RAREST = {"macro_f1": " of the rarest class", ED_AUROC: " of the rarer kind"}
COMPONENTS = ("training_component", "group_component", "cell_component")
_FIGURES = (
    *("groups", "value_4bit", "value_8bit", "difference", "standard_error", "freedom", "low"),
    *("high", *COMPONENTS, "more_seeds", "more_groups", "b", "c", "mcnemar_p", "p_value", "note"),
)
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)


def differences(
    cases: JudgedCases,
    recipes: Sequence[tuple[Mapping[str, Any], Sequence[int]]],
    rules: Sequence[str],
    metrics: Sequence[str],
    costs: Costs | None = None,
    margin: float = MARGIN,
) -> Iterator[dict[str, Any]]:
    """A row per rule, metric and recipe, which is the columns that name it and its trained pairs:
    pair i has the models 2 i and 2 i + 1 of `cases`.
    """
    for rule in rules:
        cells = cases.cells(rule, costs)
        applied = cases.applied(rule)
        for metric in metrics:
            if metric in OF_PROBABILITIES and rule != "argmax":
                continue
            measured = cells.measured(metric)
            for name, pairs in recipes:
                usable = [i for i in pairs if applied[2 * i] and applied[2 * i + 1]]
                row = _row(metric, rule, usable, cases, cells, measured, margin)
                yield {**name, "rule": rule, **row}


def _row(
    metric: str,
    rule: str,
    pairs: Sequence[int],
    cases: JudgedCases,
    cells: Cells,
    measured: Measured,
    allowed: float,
) -> dict[str, Any]:
    margin = None if metric in NO_MARGIN else allowed
    by_class = cells.by_class
    row: dict[str, Any] = {
        "metric": metric,
        "seeds": len(pairs),
        "cases": int(by_class[0] if metric in OF_EMERGENCIES else by_class.sum()),
        **dict.fromkeys(_FIGURES),
        "margin": margin,
        "verdict": None if margin is None else CANNOT_CONCLUDE,
    }
    reasons = {
        "the rule could not be applied on both sides": not pairs,
        "no ED case in the set": metric in (*OF_EMERGENCIES, ED_AUROC) and not by_class[0],
        "no case but ED in the set": metric == ED_AUROC and not by_class[1:].any(),
        "no cost matrix was given": metric == COST and cells.costs is None,
        "no loss was stored": metric == LOSS and np.isnan(cells.losses).any(),
    }
    if reason := next((text for text, applies in reasons.items() if applies), None):
        return row | {"note": f"not available: {reason}"}

    first, second = ([2 * i + side for i in pairs] for side in (0, 1))
    values = measured.values[first] - measured.values[second]
    influences = measured.influences[first] - measured.influences[second]
    row |= {
        "groups": influences.shape[1] if cases.grouped else None,
        "value_4bit": float(measured.values[first].mean()),
        "value_8bit": float(measured.values[second].mean()),
        "difference": float(values.mean()),
    }
    notes = [] if cases.grouped else ["cases have no groups and count as independent"]
    if len(pairs) == 1:
        notes.append("one training: chance in training is left out")
        if metric in PROPORTIONS:
            # Discordant cases, right on one side only, and McNemar's test of them.
            right = cases.decided[rule][[*first, *second]] == cases.truth
            if metric in OF_EMERGENCIES:
                right = right[:, cases.truth == 0]
            b = int((right[0] & ~right[1]).sum())
            c = int((right[1] & ~right[0]).sum())
            row |= {"b": b, "c": c, "mcnemar_p": mcnemar(b, c)}

    if measured.behind < MIN_UNITS:
        kind = ("groups" if cases.grouped else "cases") + _RAREST.get(metric, "")
        notes.append(f"no interval: {measured.behind} {kind} are too few (it needs {MIN_UNITS})")
    else:
        notes += _add_interval(row, values, influences)
    return row | {"note": "; ".join(notes) or None}


def _add_interval(row: dict[str, Any], values: Floats, influences: Floats) -> list[str]:
    """Add the interval and what follows from it; returns what is to be said of it."""
    notes = []
    bounds = []
    p_values = []
    sign = -1 if row["metric"] in LOWER_IS_BETTER else 1
    margin = row["margin"]

    if (found := crossed(values, influences)) is not None:
        row |= {"standard_error": found.error, "freedom": found.freedom}
        row |= dict(zip(COMPONENTS, found.components, strict=True))
        bounds.append(found.interval())
        if margin is not None:
            gained = replace(found, difference=sign * found.difference)
            p_values.append(gained.p_worse(margin))

    # Where hardly a case differs, the influences of few units say little about the others, and of
    # none they say nothing.
    if row["b"] is not None and row["b"] + row["c"] < MIN_UNITS:
        bounds.append(tango_interval(row["b"], row["c"], row["cases"]))
        p_values.append(_NORMAL.cdf(-_tango_score(row["b"], row["c"], row["cases"], -margin)))
        notes.append("Tango's score interval, of independent cases, counts where it is wider")
    if not bounds:
        return [*notes, "no interval: no group or case makes a difference"]

    low = min(low for low, _ in bounds)
    high = max(high for _, high in bounds)
    if margin is None:
        row |= {"low": low, "high": high}
        return [*notes, "no margin is defined for a cost or a loss"]

    # Two shares differ by no more than 1.
    low, high = max(low, -1.0), min(high, 1.0)
    row |= {"low": low, "high": high}
    row |= {"p_value": max(p_values), "verdict": verdict_on(row["metric"], low, high, margin)}
    if row["verdict"] == CANNOT_CONCLUDE and found is not None and (high - low) / 2 > margin:
        more = needed(found.trainings, found.units, found.components, margin)
        row |= dict(zip(("more_seeds", "more_groups"), more, strict=True))
    return notes


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided McNemar p value of b and c discordant cases, which is twice the probability of
    the rarer kind or fewer at one half each; 1 where there are none.
    """
    # Not at the top: what only reads stored figures starts fast.
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


def tango_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """95 % score interval of (b - c) / n, a difference of paired proportions.

    Holds with b = c = 0 too. Tango, Statistics in Medicine 17 (1998) 891-908: the differences whose
    score is at most z.
    """
    # Not at the top: its import takes longer than all else here, and few pairs need it.
    from scipy.optimize import brentq

    point = (b - c) / n
    # At -1 and 1 themselves the variance is 0.
    edge = 1 - 1e-9

    def score(d: float) -> float:
        return _tango_score(b, c, n, d)

    # Where even the edge is within z there is no root, and the interval ends at -1 or 1.
    low = -1.0 if score(-edge) < _Z else brentq(lambda d: score(d) - _Z, -edge, max(point, -edge))
    high = 1.0 if score(edge) > -_Z else brentq(lambda d: score(d) + _Z, min(point, edge), edge)
    return float(low), float(high)


def _tango_score(b: int, c: int, n: int, d: float) -> float:
    """(b - c - n d) / sqrt(n (2 q + d (1 - d))), where q is the maximum likelihood estimate of
    P(right on the second side only) under a true difference d.
    """
    linear = (2 * n - b + c) * d - b - c
    constant = -c * d * (1 - d)
    # The larger root of 2 n q^2 + linear q + constant; rounding can leave less than 0 under it.
    q = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    return (b - c - n * d) / math.sqrt(max(n * (2 * q + d * (1 - d)), 1e-300))
