"""The small table at the end of a sweep: a line an experiment, which 80 columns hold."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flows.report.figures import figure
from flows.report.names import BASELINES, random_mark, verdict
from flows.report.table import Table
from flows.report.typed_rows import EvaluationRow

MOST = 10  # lines of trained models, and as many of baselines


def overview(board: Collection[EvaluationRow]) -> Table:
    """The first models and baselines of a test set's leaderboard, as other commands name them; the
    title says on how many cases.
    """
    trained, baselines = _parts(board)
    shown = [*trained[:MOST], *baselines[:MOST]]
    marked = not _only_random_weights(board)
    return Table.of(_title(board, trained), [_record(row, marked) for row in shown])


def left_out(board: Collection[EvaluationRow]) -> str | None:
    """`and 50 more models`: what the table does not show; None where it shows everything."""
    hidden = [len(rows) - MOST for rows in _parts(board)]
    counts = [
        f"{n} more {kind if n > 1 else kind.removesuffix('s')}"
        for n, kind in zip(hidden, ("models", "baselines"), strict=True)
        if n > 0
    ]
    return f"and {' and '.join(counts)}" if counts else None


def _parts(board: Collection[EvaluationRow]) -> tuple[list[EvaluationRow], list[EvaluationRow]]:
    """Trained models, and baselines."""
    trained = [row for row in board if row.recipe_kind != "baseline"]
    return trained, [row for row in board if row.recipe_kind == "baseline"]


def _only_random_weights(board: Collection[EvaluationRow]) -> bool:
    return all(row.random_weights for row in board if row.precision is not None)


def _title(board: Collection[EvaluationRow], trained: Sequence[EvaluationRow]) -> str:
    row = next(iter(board))
    emergencies = round(row.cases * row.ed_prevalence)
    models = "1 trained model" if len(trained) == 1 else f"{len(trained)} trained models"
    title = (
        f"{models}, best first, then baselines, on {row.cases} test cases, {emergencies} of them "
        "emergencies. In brackets: 95 % intervals."
    )
    if trained and _only_random_weights(board):
        title += " All weights are random: the figures show that every stage runs, no more."

    return title


def _record(row: EvaluationRow, marked: bool) -> dict[str, str]:
    """`marked`: the name says where weights are random."""
    mark = random_mark(row) if marked else ""
    return {
        "experiment": _name(row) + mark,
        "accu-\nracy": figure(row.accuracy, digits=2),
        "ED recall": figure(row.ed_recall, row.ed_recall_low, row.ed_recall_high, digits=2),
        "over-\ntriage": figure(row.over_triage, digits=2),
        "gates": verdict(row).replace("\n", " "),
    }


def _name(row: EvaluationRow) -> str:
    if row.precision is None:
        return BASELINES.get(row.recipe, row.recipe).replace("\n", " ")
    return row.cell_id
