"""Bounds of the gates that allow for how many models were looked at on the same cases.

A reader picks the best of many models, so a bound that holds for one alone is too favourable. The
adjusted one holds for all of them at once with 95 % confidence: its error is divided among them
(Bonferroni), which holds however much the models have in common.
"""

from __future__ import annotations

from typing import Any

from scipy.special import betaincinv

from tasks.judging.point_metrics import MIN_UNITS
from warehouse.comparison.cells import JudgedCases, Measured
from warehouse.comparison.crossed import crossed

Bound = dict[str, Any]  # a row of `adjusted_bound` but for its keys


def adjusted_bounds(cases: JudgedCases) -> list[list[Bound]]:
    """The three gates of each model in `cases`, by its primary rule."""
    cells = cases.cells("primary")
    recall = cells.measured("ed_recall")
    f2 = cells.measured("ed_f2")

    gates = []
    for model, table in enumerate(cells.counts.sum(axis=0)):
        caught = int(table[0, 0])
        emergencies = int(table[0].sum())
        of_recall = _recall(caught, emergencies, recall, model, cases.grouped)
        missed = None if of_recall["bound"] is None else 1 - of_recall["bound"]
        gates.append(
            [
                {"gate": "ed_recall", **of_recall},
                {"gate": "ed_f2", **_f2(emergencies, f2, model, cases.grouped)},
                # The same evidence, as the gate itself.
                {"gate": "ed_false_negative_rate", **of_recall, "bound": missed},
            ]
        )
    return gates


def exact_lower(successes: int, n: int, looks: int) -> float:
    """The lower exact bound (Clopper-Pearson) of a proportion at 95 %, divided among the looks."""
    tail = 0.025 / looks
    return 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))


def _recall(caught: int, emergencies: int, recall: Measured, model: int, grouped: bool) -> Bound:
    if not emergencies:
        return _none("not available: no ED case was decided")
    if grouped and recall.behind < MIN_UNITS:
        return _none(f"no bound: fewer than {MIN_UNITS} groups")

    looks = len(recall.values)
    exact = exact_lower(caught, emergencies, looks)
    clustered = _lower(recall, model)
    # The less favourable bound counts: the exact one treats cases of a group as independent.
    if grouped and clustered is not None and clustered < exact:
        return _bound(clustered, "clustered, Student", looks, grouped)
    return _bound(exact, "exact (Clopper-Pearson)", looks, grouped)


def _f2(emergencies: int, f2: Measured, model: int, grouped: bool) -> Bound:
    if not emergencies:
        return _none("not available: no ED case was decided")
    if f2.behind < MIN_UNITS or (bound := _lower(f2, model)) is None:
        return _none("no bound: too few groups or cases differ")
    return _bound(bound, "clustered, Student" if grouped else "Student", len(f2.values), grouped)


def _lower(measured: Measured, model: int) -> float | None:
    """Student's lower bound on the influences of units, divided among the looks; None where nothing
    varies.
    """
    found = crossed(measured.values[[model]], measured.influences[[model]])
    return None if found is None else found.interval(1 - 0.05 / len(measured.values))[0]


def _bound(bound: float, method: str, looks: int, grouped: bool) -> Bound:
    note = None if grouped else "assumes independent cases"
    return {
        "bound": bound,
        "method": f"{method}, 95 % divided among {looks} models",
        "note": note,
    }


def _none(note: str) -> Bound:
    return {"bound": None, "method": "none", "note": note}
