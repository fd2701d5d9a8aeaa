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

Bound = dict[str, Any]  # columns bound, method and note of `adjusted_bound`


def adjusted_bounds(cases: JudgedCases) -> list[list[Bound]]:
    """The three gates of each model in `cases`, by its primary rule."""
    cells = cases.cells("primary")
    recall = cells.measured("ed_recall")
    f2 = cells.measured("ed_f2")

    gates = []
    for model, table in enumerate(cells.counts.sum(axis=0)):
        caught, emergencies = int(table[0, 0]), int(table[0].sum())
        if emergencies:
            of_recall = _recall(caught, emergencies, recall, model, cases.grouped)
            of_f2 = _f2(f2, model, cases.grouped)
        else:
            of_recall = of_f2 = _none("not available: no ED case was decided")
        missed = None if of_recall["bound"] is None else 1 - of_recall["bound"]
        gates.append(
            [
                {"gate": "ed_recall", **of_recall},
                {"gate": "ed_f2", **of_f2},
                # The same evidence, as the gate itself.
                {"gate": "ed_false_negative_rate", **of_recall, "bound": missed},
            ]
        )
    return gates


def _recall(caught: int, emergencies: int, recall: Measured, model: int, grouped: bool) -> Bound:
    if grouped and recall.behind < MIN_UNITS:
        return _none(f"no bound: fewer than {MIN_UNITS} groups")

    # The lower exact bound (Clopper-Pearson), its error divided among the models.
    models = len(recall.values)
    exact = 0.0
    if caught:
        exact = float(betaincinv(caught, emergencies - caught + 1, 0.025 / models))
    clustered = _lower(recall, model)
    # The less favourable bound counts: the exact one treats cases of a group as independent.
    if grouped and clustered is not None and clustered < exact:
        return _bound(clustered, "clustered, Student", models, grouped)
    return _bound(exact, "exact (Clopper-Pearson)", models, grouped)


def _f2(f2: Measured, model: int, grouped: bool) -> Bound:
    if f2.behind < MIN_UNITS or (bound := _lower(f2, model)) is None:
        return _none("no bound: too few groups or cases differ")
    return _bound(bound, "clustered, Student" if grouped else "Student", len(f2.values), grouped)


def _lower(measured: Measured, model: int) -> float | None:
    """Student's lower bound on the influences of units, its error divided among the models, and 0 at
    least, as a share has; None where nothing varies.
    """
    found = crossed(measured.values[[model]], measured.influences[[model]])
    if found is None:
        return None
    return max(0.0, found.interval(1 - 0.05 / len(measured.values))[0])


def _bound(bound: float, name: str, models: int, grouped: bool) -> Bound:
    return {
        "bound": bound,
        "method": f"{name}, 95 % divided among {models} models",
        "note": None if grouped else "assumes independent cases",
    }


def _none(reason: str) -> Bound:
    return {"bound": None, "method": "none", "note": reason}
