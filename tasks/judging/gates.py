"""The hard safety gates and the verdict they give.

Where a new gate goes: its threshold into `GATE_THRESHOLDS` of `tasks/spec/base.py`, and its row into the list
in `judge_gates`. The other places (the warehouse's CHECK and audit, the tables) are listed in
.github/CONTRIBUTING.md under "A gate".

PASS needs a bound, not only an estimate: 36 of 36 emergencies caught still allows a true recall of
0.90. The exact bound assumes independent cases, so where cases come in groups the clustered
bootstrap bound must hold as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tasks.judging.intervals import (
    EXACT,
    INDEPENDENT,
    Groups,
    Interval,
    clopper_pearson,
    interval_columns,
    joined_notes,
)
from tasks.judging.metrics import Resampled, resample_metrics
from tasks.judging.point_metrics import Row, Rows, ratio, ratio_parts
from tasks.spec import GATE_THRESHOLDS

State = Literal["PASS", "PROVISIONAL", "FAIL", "NOT AVAILABLE"]
Verdict = Literal["passes_gates", "provisional", "unsafe"]


def judge_gates(
    labels: Sequence[str], decisions: Sequence[str], groups: Groups | None = None, seed: int = 0
) -> tuple[Rows, Verdict]:
    """Rows of the table `gate` for ed_recall, ed_f2 and ed_false_negative_rate, and the verdict.

    PASS: the bound holds (recall: exact, and with groups also the clustered bootstrap; F2:
    bootstrap alone). PROVISIONAL: only the estimate holds. FAIL: not even the estimate does. NOT
    AVAILABLE: the set has no ED case or, for F2, no other case.

    `bound` is the end of the 95 % interval that must hold, of the `method`; `successes` of `n` where
    the metric is a proportion. Beside it the intervals behind the bound: exact (of a proportion),
    clustered (where cases have groups).

    The verdict is 'unsafe' with any FAIL or NOT AVAILABLE, 'passes_gates' with PASS alone, else
    'provisional'. Never 'safe': gates on one set of cases cannot show that.
    """
    if "ED" in labels:
        (resampled,) = resample_metrics(labels, decisions, groups, seed=seed)
        recall = _recall_gate(resampled)
        gates = [recall, _f2_gate(resampled), _false_negative_gate(recall)]
    else:
        reason = "not available: no ED case in this set"
        gates = [_gate(name, None, 0, reason) for name in GATE_THRESHOLDS]

    states = {gate["state"] for gate in gates}
    if states & {"FAIL", "NOT AVAILABLE"}:
        return gates, "unsafe"
    return gates, "passes_gates" if states == {"PASS"} else "provisional"


def _gate(
    name: str,
    value: float | None,
    n: int,
    note: str | None,
    bound: Interval | None = None,
    successes: int | None = None,
    exact: Interval | None = None,
    clustered: Interval | None = None,
) -> Row:
    """A gate that holds above its threshold; `bound`: the interval whose lower end must hold."""
    threshold = GATE_THRESHOLDS[name]
    low, _, method = bound or (None, None, "none")
    state: State = "PROVISIONAL"
    if value is None:
        state = "NOT AVAILABLE"
    elif value < threshold:
        state = "FAIL"
    elif low is not None and low >= threshold:
        state = "PASS"

    return {
        "gate": name,
        "state": state,
        "threshold": threshold,
        "value": value,
        "bound": low,
        "successes": successes,
        "n": n,
        "method": method,
        "note": note,
        **interval_columns(exact, clustered),
    }


def _recall_gate(resampled: Resampled) -> Row:
    caught, cases = map(int, ratio_parts("ed_recall", resampled.table))
    exact = Interval(*clopper_pearson(caught, cases), EXACT)
    clustered = resampled.interval("ed_recall") if resampled.clustered else None
    # Both bounds must hold, so the lower one counts.
    bound = min((end for end in (exact, clustered) if end), key=lambda end: (end.low, end.method))
    lacks_a_bound = resampled.clustered and clustered is None

    note = None
    if not resampled.clustered:
        note = INDEPENDENT
    elif lacks_a_bound:
        reason = resampled.why_no_interval("ed_recall")
        note = f"no clustered bound, so PASS is out of reach: {reason}"
    elif caught == cases:
        note = "no misses to resample: the exact bound assumes independent cases"

    gate = _gate("ed_recall", caught / cases, cases, note, bound, caught, exact, clustered)
    if lacks_a_bound and gate["state"] == "PASS":
        gate["state"] = "PROVISIONAL"
    return gate


def _f2_gate(resampled: Resampled) -> Row:
    cases = int(resampled.table.sum())
    ed_cases = int(resampled.table[0].sum())
    if ed_cases == cases:  # nothing could be a false alarm, so always-ED would pass
        return _gate("ed_f2", None, cases, "not available: emergencies only in this set")

    value = float(ratio(*ratio_parts("ed_f2", resampled.table)))
    interval = resampled.interval("ed_f2")
    if interval is None:
        note = f"no bound, so PASS is out of reach: {resampled.why_no_interval('ed_f2')}"
        return _gate("ed_f2", value, cases, note)

    # What weakens the bound: its assumption, no spread, a set that always-ED would pass.
    notes = [] if resampled.clustered else [INDEPENDENT]
    if interval.low == interval.high:
        notes.append(
            "every resample gives the same value: the bound says nothing beyond the estimate"
        )
    always_ed = 5 * ed_cases / (4 * ed_cases + cases)  # F2 of a model that answers ED to everything
    if always_ed >= GATE_THRESHOLDS["ed_f2"]:
        notes.append(f"so many emergencies that always-ED has {always_ed:.3f}")

    clustered = interval if resampled.clustered else None
    return _gate("ed_f2", value, cases, joined_notes(*notes), interval, clustered=clustered)


def _false_negative_gate(recall: Row) -> Row:
    """1 - recall, judged by the recall gate so that rounding cannot make the two disagree."""
    misses = recall["n"] - recall["successes"]
    complement = {
        name: None if recall[of_recall] is None else 1 - recall[of_recall]
        for name, of_recall in (
            ("bound", "bound"),
            ("exact_low", "exact_high"),
            ("exact_high", "exact_low"),
            ("clustered_low", "clustered_high"),
            ("clustered_high", "clustered_low"),
        )
    }
    return recall | {
        "gate": "ed_false_negative_rate",
        "threshold": GATE_THRESHOLDS["ed_false_negative_rate"],
        "value": misses / recall["n"],
        "successes": misses,
        "note": joined_notes("1 - ed_recall: the same evidence", recall["note"]),
        **complement,
    }
