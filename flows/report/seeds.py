"""How far figures spread between seeds of one experiment."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flows.report.figures import figure, is_number, percent
from flows.report.names import random_mark
from flows.report.prevalence import restated
from flows.report.table import Table
from flows.report.typed_rows import EvaluationRow, typed_rows

SEEDS = "Spread between seeds of one experiment: mean, and below it the standard deviation"

# What the seeds of one experiment have in common: base model, precision, recipe, kind of weights,
# settings, set, and how they are judged.
Key = tuple[str, str | None, str, bool | None, str | None, str, str, float | None, str | None]


@dataclass(frozen=True)
class SeedsRow:
    """A row of `seeds`: figures over the seeds of one experiment."""

    base_model: str
    precision: str
    recipe: str
    random_weights: bool | None
    settings_digest: str | None
    set_digest: str
    primary_rule: str
    target_ed_recall: float | None
    cost_matrix: str | None
    seeds: int
    accuracy_mean: float | None
    accuracy_sd: float | None
    ed_recall_mean: float | None
    ed_recall_sd: float | None
    ed_recall_worst: float | None
    passes_gates: int
    unsafe: int


@dataclass(frozen=True)
class DifferencesRow:
    """A row of `seed_differences`: 4 minus 8 bits, over the seeds of one experiment."""

    base_model: str
    recipe: str
    random_weights: bool | None
    set_digest: str
    seeds: int
    accuracy_diff_mean: float | None
    accuracy_diff_sd: float | None
    ed_recall_diff_mean: float | None
    ed_recall_diff_sd: float | None


def seeds(
    board: Collection[EvaluationRow],
    prevalence: float | None = None,
    ids: Collection[str] | None = None,
) -> Table:
    """Mean and standard deviation over seeds, where a grid has more than one.

    `prevalence` restates precision and F2 at another share of emergencies. `ids`: the evaluations
    of the study.
    """
    ed_figures = _ed_figures(board, prevalence)
    shown_recipes = {_recipe(row) for row in board}
    records = [
        _seeds_record(row, ed_figures[_key(row)])
        for row in typed_rows(SeedsRow, "seeds", only=ids)
        if _key(row) in ed_figures
    ]
    records += [
        _differences_record(row)
        for row in typed_rows(DifferencesRow, "seed_differences", only=ids)
        if _recipe(row) in shown_recipes
    ]

    return Table.of(SEEDS, records, '"FROM seeds"')


def _seeds_record(row: SeedsRow, ed_figures: dict[str, str]) -> dict[str, str]:
    return {
        "experiment": f"{row.base_model} {row.precision} {row.recipe}{random_mark(row)}",
        "seeds": str(row.seeds),
        "accuracy": _spread(row.accuracy_mean, row.accuracy_sd),
        "ED recall": _spread(row.ed_recall_mean, row.ed_recall_sd),
        "worst\nED recall": figure(row.ed_recall_worst),
        **ed_figures,
        "passes,\nunsafe": f"{row.passes_gates}, {row.unsafe}",
    }


def _differences_record(row: DifferencesRow) -> dict[str, str]:
    return {
        "experiment": f"{row.base_model} {row.recipe}, 4 minus 8 bits{random_mark(row)}",
        "seeds": str(row.seeds),
        "accuracy": _spread(row.accuracy_diff_mean, row.accuracy_diff_sd, sign=True),
        "ED recall": _spread(row.ed_recall_diff_mean, row.ed_recall_diff_sd, sign=True),
        "worst\nED recall": "",
        "ED precision": "",
        "ED F2": "",
        "passes,\nunsafe": "",
    }


def _ed_figures(
    board: Collection[EvaluationRow], prevalence: float | None
) -> dict[Key, dict[str, str]]:
    """ED precision and F2 over the seeds of each experiment, at the set's own prevalence or
    restated seed by seed.
    """
    by_experiment: dict[Key, list[EvaluationRow]] = defaultdict(list)
    for row in board:
        by_experiment[_key(row)].append(row)
    return {key: _over_seeds(rows, prevalence) for key, rows in by_experiment.items()}


def _over_seeds(rows: list[EvaluationRow], prevalence: float | None) -> dict[str, str]:
    figures = [(row.ed_precision, row.ed_f2) for row in rows]
    share = rows[0].ed_prevalence  # of one set, so one for all seeds
    if prevalence is not None:
        figures = [
            restated(row.ed_recall, row.ed_precision, row.ed_prevalence, prevalence) for row in rows
        ]
        share = prevalence

    precision = _mean_and_sd([precision for precision, _ in figures])
    f2 = _mean_and_sd([f2 for _, f2 in figures])
    return {
        "ED precision": f"{_spread(*precision)}\nof {percent(share)} ED",
        "ED F2": _spread(*f2),
    }


def _mean_and_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """None if a seed has no value: a mean over some of the seeds would flatter."""
    numbers = [value for value in values if is_number(value)]
    if len(numbers) < len(values):
        return None, None
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None


def _key(row: EvaluationRow | SeedsRow) -> Key:
    return (
        row.base_model,
        row.precision,
        row.recipe,
        row.random_weights,
        row.settings_digest,
        row.set_digest,
        row.primary_rule,
        row.target_ed_recall,
        row.cost_matrix,
    )


def _recipe(row: EvaluationRow | DifferencesRow) -> tuple[str, str, str, bool | None]:
    """What both sides of a difference have in common."""
    return row.set_digest, row.base_model, row.recipe, row.random_weights


def _spread(mean: float | None, sd: float | None, sign: bool = False) -> str:
    return f"{figure(mean, sign=sign)}\nsd {figure(sd)}"
