"""The hard safety gates and the verdict they give.

Where a new gate goes: its threshold into THRESHOLDS, a function that judges it beside
`_recall_gate` and `_f2_gate`, and its result into the list in `judge_gates`. The other places (the
warehouse's CHECK and audit, the tables) are listed in .github/CONTRIBUTING.md under "A gate".

PASS needs a bound, not only an estimate: 36 of 36 emergencies caught still allows a true recall of
0.90. The exact bound assumes independent cases, so where cases come in groups the clustered
bootstrap bound must hold as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.judging.gate_thresholds import ED_F2, ED_FALSE_NEGATIVE_RATE, ED_RECALL
from tasks.judging.intervals import Groups, Interval, clopper_pearson, interval_columns
from tasks.judging.metrics import (
    EXACT,
    INDEPENDENT,
    NO_INTERVAL,
    Resampled,
    confusion,
    joined_notes,
    resample_metrics,
)
from tasks.judging.point_metrics import metric_values

THRESHOLDS = {
    "ed_recall": ED_RECALL,
    "ed_f2": ED_F2,
    "ed_false_negative_rate": ED_FALSE_NEGATIVE_RATE,
}
State = Literal["PASS", "PROVISIONAL", "FAIL", "NOT AVAILABLE"]
Verdict = Literal["passes_gates", "provisional", "unsafe"]


@dataclass(frozen=True)
class Gate:
    """One judged gate.

    `bound` is the end of the 95 % interval that must hold; `successes` of `n` where the metric is a
    proportion. The intervals behind the bound: exact (of a proportion), clustered (where cases have
    groups).
    """

    name: str
    state: State
    threshold: float
    value: float | None
    bound: float | None
    successes: int | None
    n: int
    method: str
    note: str | None = None
    exact_low: float | None = None
    exact_high: float | None = None
    clustered_low: float | None = None
    clustered_high: float | None = None

    @classmethod
    def not_available(cls, name: str, n: int, note: str | None) -> Gate:
        """A gate that cannot be judged, for the reason in `note`."""
        return cls(name, "NOT AVAILABLE", THRESHOLDS[name], None, None, None, n, NO_INTERVAL, note)


def judge_gates(
    labels: Sequence[str], decisions: Sequence[str], groups: Groups | None = None, seed: int = 0
) -> tuple[list[Gate], Verdict]:
    """Gates ed_recall, ed_f2, ed_false_negative_rate of the primary rule, and the verdict.

    PASS: the bound holds (recall: exact, and with groups also the clustered bootstrap; F2:
    bootstrap alone). PROVISIONAL: only the estimate holds. FAIL: not even the estimate does. NOT
    AVAILABLE: the set has no ED case or, for F2, no other case.
    """
    table = confusion(labels, decisions)
    ed_cases = int(table[0].sum())
    if ed_cases == 0:
        reason = "not available: no ED case in this set"
        gates = [Gate.not_available(name, 0, reason) for name in THRESHOLDS]
        return gates, verdict(gates)

    resampled = resample_metrics(labels, decisions, groups, seed=seed)
    recall = _recall_gate(int(table[0, 0]), ed_cases, resampled)
    f2 = _f2_gate(float(metric_values(table)["ed_f2"]), ed_cases, len(labels), resampled)
    gates = [recall, f2, _false_negative_gate(recall)]

    return gates, verdict(gates)


def verdict(gates: Sequence[Gate]) -> Verdict:
    """'unsafe' with any FAIL or NOT AVAILABLE, 'passes_gates' with PASS alone, else 'provisional'.

    Never 'safe': gates on one set of cases cannot show that.
    """
    states = {gate.state for gate in gates}
    if states & {"FAIL", "NOT AVAILABLE"}:
        return "unsafe"
    return "passes_gates" if states == {"PASS"} else "provisional"


def _state(value: float, bound: float | None, threshold: float) -> State:
    if value < threshold:
        return "FAIL"
    return "PASS" if bound is not None and bound >= threshold else "PROVISIONAL"


def _recall_gate(caught: int, ed_cases: int, resampled: Resampled) -> Gate:
    value = caught / ed_cases
    exact = Interval(*clopper_pearson(caught, ed_cases), EXACT)
    clustered = resampled.interval("ed_recall") if resampled.clustered else None
    # Both bounds must hold, so the lower one counts.
    bound, method = min((end.low, end.method) for end in (exact, clustered) if end)

    state = _state(value, bound, ED_RECALL)
    note = None
    if not resampled.clustered:
        note = INDEPENDENT
    elif clustered is None:
        state = _state(value, None, ED_RECALL)
        reason = resampled.why_no_interval("ed_recall")
        note = f"no clustered bound, so PASS is out of reach: {reason}"
    elif caught == ed_cases:
        note = "no misses to resample: the exact bound assumes independent cases"

    columns = interval_columns(exact, clustered)
    return Gate(
        "ed_recall", state, ED_RECALL, value, bound, caught, ed_cases, method, note, **columns
    )


def _f2_gate(value: float, ed_cases: int, cases: int, resampled: Resampled) -> Gate:
    if ed_cases == cases:  # nothing could be a false alarm, so always-ED would pass
        return Gate.not_available("ed_f2", cases, "not available: emergencies only in this set")

    interval = resampled.interval("ed_f2")
    if interval is None:
        reason = f"no bound, so PASS is out of reach: {resampled.why_no_interval('ed_f2')}"
        state = _state(value, None, ED_F2)
        return Gate("ed_f2", state, ED_F2, value, None, None, cases, NO_INTERVAL, reason)

    state = _state(value, interval.low, ED_F2)
    # What weakens the bound: its assumption, no spread, a set that always-ED would pass.
    assumption = None if resampled.clustered else INDEPENDENT
    no_spread = None
    if interval.low == interval.high:
        no_spread = (
            "every resample gives the same value: the bound says nothing beyond the estimate"
        )
    always_ed = 5 * ed_cases / (4 * ed_cases + cases)  # F2 of a model that answers ED to everything
    too_easy = None
    if always_ed >= ED_F2:
        too_easy = f"so many emergencies that always-ED has {always_ed:.3f}"
    note = joined_notes(assumption, no_spread, too_easy)

    columns = interval_columns(None, interval if resampled.clustered else None)
    return Gate(
        "ed_f2", state, ED_F2, value, interval.low, None, cases, interval.method, note, **columns
    )


def _false_negative_gate(recall: Gate) -> Gate:
    """1 - recall, judged by the recall gate so that rounding cannot make the two disagree."""
    assert recall.value is not None and recall.bound is not None and recall.successes is not None
    misses = recall.n - recall.successes
    return replace(
        recall,
        name="ed_false_negative_rate",
        threshold=ED_FALSE_NEGATIVE_RATE,
        value=misses / recall.n,
        bound=1 - recall.bound,
        successes=misses,
        note=joined_notes("1 - ed_recall: the same evidence", recall.note),
        exact_low=_complement(recall.exact_high),
        exact_high=_complement(recall.exact_low),
        clustered_low=_complement(recall.clustered_high),
        clustered_high=_complement(recall.clustered_low),
    )


def _complement(share: float | None) -> float | None:
    return None if share is None else 1 - share
