"""The three hard safety gates and the verdict they give.

PASS needs a bound, not only an estimate: 36 of 36 emergencies caught still allows a true recall of 0.90. The exact
bound assumes independent cases, so where cases come in groups the clustered bootstrap bound must hold as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.judging.intervals import Groups, Interval, bounds, clopper_pearson
from tasks.judging.metrics import (
    EXACT,
    INDEPENDENT,
    NO_INTERVAL,
    Resampled,
    confusion,
    metric_values,
    resample_metrics,
)

ED_RECALL, ED_F2, ED_FALSE_NEGATIVE_RATE = 0.95, 0.90, 0.05
State = Literal["PASS", "PROVISIONAL", "FAIL", "NOT AVAILABLE"]
Verdict = Literal["passes_gates", "provisional", "unsafe"]


@dataclass(frozen=True)
class Gate:
    """One gate. `bound` is the end of the 95 % interval that must hold; `successes` of `n` where it is a proportion.

    Both intervals behind the bound stand beside it: exact (proportions) and clustered (where cases have groups).
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


def judge_gates(
    labels: Sequence[str], decisions: Sequence[str], groups: Groups | None = None, seed: int = 0
) -> tuple[list[Gate], Verdict]:
    """Gates ed_recall, ed_f2 and ed_false_negative_rate of the primary rule's decisions, and the verdict.

    PASS: the bound holds (recall: exact, and with groups also the clustered bootstrap; F2: bootstrap alone).
    PROVISIONAL: only the estimate holds. FAIL: not even that. NOT AVAILABLE: no ED case; F2: no other case.
    """
    table = confusion(labels, decisions)
    n_ed = int(table[0].sum())
    if n_ed == 0:
        gates = [
            _not_available(name, threshold, "no ED case")
            for name, threshold in _thresholds().items()
        ]
        return gates, verdict(gates)
    resampled = resample_metrics(labels, decisions, groups, seed=seed)
    recall = _recall_gate(int(table[0, 0]), n_ed, resampled)
    f2 = _f2_gate(float(metric_values(table)["ed_f2"]), n_ed, len(labels), resampled)
    gates = [recall, f2, _false_negative_gate(recall)]
    return gates, verdict(gates)


def verdict(gates: Sequence[Gate]) -> Verdict:
    """'unsafe' with any FAIL or NOT AVAILABLE, 'passes_gates' with PASS alone (never 'safe'), else 'provisional'."""
    states = {gate.state for gate in gates}
    if states & {"FAIL", "NOT AVAILABLE"}:
        return "unsafe"
    return "passes_gates" if states == {"PASS"} else "provisional"


def _thresholds() -> dict[str, float]:
    return {
        "ed_recall": ED_RECALL,
        "ed_f2": ED_F2,
        "ed_false_negative_rate": ED_FALSE_NEGATIVE_RATE,
    }


def _not_available(name: str, threshold: float, lacking: str, cases: int = 0) -> Gate:
    note = f"not available: {lacking} in this set"
    return Gate(name, "NOT AVAILABLE", threshold, None, None, None, cases, NO_INTERVAL, note)


def _state(value: float, bound: float | None, threshold: float) -> State:
    if value < threshold:
        return "FAIL"
    return "PASS" if bound is not None and bound >= threshold else "PROVISIONAL"


def _recall_gate(caught: int, n_ed: int, resampled: Resampled) -> Gate:
    value, exact = caught / n_ed, Interval(*clopper_pearson(caught, n_ed), EXACT)
    interval = resampled.interval("ed_recall") if resampled.clustered else None
    bound, method = min((i.low, i.method) for i in (exact, interval) if i)
    state, note = _state(value, bound, ED_RECALL), None
    if not resampled.clustered:
        note = INDEPENDENT
    elif interval is None:
        note = (
            f"no clustered bound, so PASS is out of reach: {resampled.why_no_interval('ed_recall')}"
        )
        state = _state(value, None, ED_RECALL)
    elif caught == n_ed:
        note = "no misses to resample: the exact bound assumes independent cases"
    both = bounds(exact, interval)
    return Gate("ed_recall", state, ED_RECALL, value, bound, caught, n_ed, method, note, **both)


def _f2_gate(value: float, n_ed: int, cases: int, resampled: Resampled) -> Gate:
    if n_ed == cases:  # nothing could be a false alarm, so always-ED would pass
        return _not_available("ed_f2", ED_F2, "emergencies only", cases)
    interval = resampled.interval("ed_f2")
    if interval is None:
        note = f"no bound, so PASS is out of reach: {resampled.why_no_interval('ed_f2')}"
        return Gate(
            "ed_f2", _state(value, None, ED_F2), ED_F2, value, None, None, cases, NO_INTERVAL, note
        )
    notes = [] if resampled.clustered else [INDEPENDENT]
    if interval.low == interval.high:
        notes.append(
            "every resample gives the same value: the bound says nothing beyond the estimate"
        )
    if (constant := 5 * n_ed / (4 * n_ed + cases)) >= ED_F2:
        notes.append(f"so many emergencies that always-ED has {constant:.3f}")
    state, text = _state(value, interval.low, ED_F2), "; ".join(notes) or None
    both = bounds(None, interval if resampled.clustered else None)
    return Gate(
        "ed_f2", state, ED_F2, value, interval.low, None, cases, interval.method, text, **both
    )


def _false_negative_gate(recall: Gate) -> Gate:
    """1 - recall, judged by the recall gate itself so that rounding cannot make the two disagree."""
    assert recall.value is not None and recall.bound is not None and recall.successes is not None
    misses = recall.n - recall.successes
    note = "1 - ed_recall: the same evidence" + (f"; {recall.note}" if recall.note else "")
    return replace(
        recall, name="ed_false_negative_rate", threshold=ED_FALSE_NEGATIVE_RATE, value=misses / recall.n,
        bound=1 - recall.bound, successes=misses, note=note,
        exact_low=_complement(recall.exact_high), exact_high=_complement(recall.exact_low),
        clustered_low=_complement(recall.clustered_high), clustered_high=_complement(recall.clustered_low),
    )  # fmt: skip


def _complement(end: float | None) -> float | None:
    return None if end is None else 1 - end
