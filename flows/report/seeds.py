"""How far figures spread between seeds of one experiment."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Sequence

from flows.report.figures import ed_recall_figure, figure, is_number, percent, random_mark
from flows.report.gates import restated
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, rows_of

SEEDS = "Spread between seeds of one experiment: mean, and below it the standard deviation"

# What the seeds of one line of the table have in common: seed_group, set of cases, precision.
Key = tuple[str, str, str | None]


def seeds(
    board: Collection[EvaluationRow],
    prevalence: float | None = None,
    ids: Collection[str] | None = None,
) -> ReportTable:
    """Mean and standard deviation over seeds, where a grid has more than one.

    `prevalence` restates precision and F2 at another share of emergencies. `ids`: the evaluations
    of the study.
    """
    by_seeds = _by_seeds(board)
    shown = {(group, set_digest) for group, set_digest, _ in by_seeds}

    records = []
    for row in rows_of("seeds", only=ids):
        if of_seeds := by_seeds.get((row.seed_group, row.set_digest, row.precision)):
            records.append(_seeds_record(row, _ed_figures(of_seeds, prevalence)))

    records += [
        _differences_record(row)
        for row in rows_of("seed_differences", only=ids)
        if (row.seed_group, row.set_digest) in shown
    ]

    return ReportTable.of(SEEDS, records, '"FROM seeds"')


def _seeds_record(row: Row, ed_figures: dict[str, str]) -> dict[str, str]:
    return {
        "experiment": f"{row.base_model} {row.precision} {row.recipe}{random_mark(row)}",
        "seeds": str(row.seeds),
        "accuracy": _spread(row.accuracy_mean, row.accuracy_sd),
        "ED recall": _spread(row.ed_recall_mean, row.ed_recall_sd),
        "worst\nED recall": ed_recall_figure(row.ed_recall_worst),
        **ed_figures,
        "passes,\nunsafe": f"{row.passes_gates}, {row.unsafe}",
    }


def _differences_record(row: Row) -> dict[str, str]:
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


def _by_seeds(board: Collection[EvaluationRow]) -> dict[Key, list[EvaluationRow]]:
    """The rows that differ by their seeds alone."""
    group_of = {row.evaluation_id: row.seed_group for row in rows_of("seed_group")}

    by_seeds: dict[Key, list[EvaluationRow]] = defaultdict(list)
    for row in board:
        by_seeds[group_of[row.evaluation_id], row.set_digest, row.precision].append(row)
    return by_seeds


def _ed_figures(rows: list[EvaluationRow], prevalence: float | None) -> dict[str, str]:
    """ED precision and F2 over seeds, at the set's own prevalence or restated seed by seed."""
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


def _spread(mean: float | None, sd: float | None, sign: bool = False) -> str:
    return f"{figure(mean, sign=sign)}\nsd {figure(sd)}"
