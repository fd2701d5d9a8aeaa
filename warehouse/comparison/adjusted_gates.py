"""Bounds of the gates that allow for how many models were looked at on the same cases.

A reader picks the best of many models, so a bound that holds for one alone is too favourable. The
adjusted one holds for all of them at once with 95 % confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import betaincinv

from tasks.judging.point_metrics import MIN_UNITS
from warehouse.comparison.cells import Cells, JudgedCases
from warehouse.comparison.joint import Band, Statistic, joint_bands
from warehouse.comparison.resampling import RESAMPLES

GATED = ("ed_recall", "ed_f2")


@dataclass(frozen=True)
class AdjustedBound:
    """A row of `adjusted_bound` but for its keys; `bound` is None for the reason in `note`."""

    gate: str
    bound: float | None
    method: str
    note: str | None = None


def adjusted_bounds(cases: JudgedCases, resamples: int = RESAMPLES) -> list[list[AdjustedBound]]:
    """The three gates of each model in `cases`, by its primary rule."""
    cells = cases.cells("primary")
    totals = cells.counts.sum(axis=0)
    resampled = _resampled(cells, resamples)

    gates = []
    for model in range(cases.models):
        caught = int(totals[model, 0, 0])
        emergencies = int(totals[model, 0].sum())
        recall = _recall(caught, emergencies, cases, resampled["ed_recall"][model])
        gates.append([recall, _f2(emergencies, resampled["ed_f2"][model], cases), _missed(recall)])

    return gates


def exact_lower(successes: int, n: int, looks: int) -> float:
    """The lower exact bound (Clopper-Pearson) of a proportion at 95 %, divided among the looks."""
    # Bonferroni's correction, which holds however much the models have in common.
    tail = 0.025 / looks
    return 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))


def _resampled(cells: Cells, resamples: int) -> dict[str, list[Band | None]]:
    """The simultaneous bands of both metrics of every model; None where too few units or none with
    an emergency are behind it.
    """
    keys: list[tuple[str, int]] = []
    statistics: list[Statistic] = []
    units = (cells.counts[..., 0, :].sum(axis=-1) > 0).sum(axis=0)

    for metric in GATED:
        numerators, denominators = cells.ratios(metric)
        for model in range(cells.counts.shape[1]):
            if units[model] >= MIN_UNITS:
                keys.append((metric, model))
                statistics.append(Statistic(numerators[:, model], denominators[:, model]))

    all_bands = joint_bands(statistics, [None] * len(keys), resamples)
    bands = dict(zip(keys, all_bands, strict=True))
    return {
        metric: [bands.get((metric, model)) for model in range(cells.counts.shape[1])]
        for metric in GATED
    }


def _recall(caught: int, emergencies: int, cases: JudgedCases, band: Band | None) -> AdjustedBound:
    if not emergencies:
        return AdjustedBound("ed_recall", None, "none", "not available: no ED case was decided")

    exact = exact_lower(caught, emergencies, cases.models)
    method = f"exact (Clopper-Pearson) 95 %, divided among {cases.models} models"
    if not cases.grouped:
        return AdjustedBound("ed_recall", exact, method, "assumes independent cases")
    if band is None:
        return AdjustedBound("ed_recall", None, "none", f"no bound: fewer than {MIN_UNITS} groups")
    # The less favourable bound counts: the exact one treats cases of a group as independent.
    if band.low is None or band.low >= exact:
        return AdjustedBound("ed_recall", exact, method)

    return AdjustedBound("ed_recall", band.low, _joint(cases))


def _f2(emergencies: int, band: Band | None, cases: JudgedCases) -> AdjustedBound:
    if not emergencies:
        return AdjustedBound("ed_f2", None, "none", "not available: no ED case was decided")
    if band is None or band.low is None:
        return AdjustedBound("ed_f2", None, "none", "no bound: too few differ to be resampled")
    note = None if cases.grouped else "assumes independent cases"
    return AdjustedBound("ed_f2", band.low, _joint(cases), note)


def _missed(recall: AdjustedBound) -> AdjustedBound:
    """1 - recall: the same evidence, as the gate itself."""
    bound = None if recall.bound is None else 1 - recall.bound
    return AdjustedBound("ed_false_negative_rate", bound, recall.method, recall.note)


def _joint(cases: JudgedCases) -> str:
    kind = "groups" if cases.grouped else "cases"
    return f"joint bootstrap of {cases.units} {kind} over {cases.models} models, 95 % at once"
