"""The leaderboard at a glance, for the terminal: a line an experiment, named as commands take it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flows.report.figures import clock, counted, ed_recall_figure, figure, is_number, percent
from flows.report.leaderboard import reference_notes
from flows.report.names import listed_name, verdict
from flows.report.prevalence import figures_at
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow

ALL_RANDOM = "All weights are random: the figures show that every stage runs, no more."
# The columns that --prevalence restates stand among the first ones then.
RESTATED = ("experiment", "ED recall", "ED F2", "ED pre-\ncision", "gates")


def overview(
    board: Collection[EvaluationRow], most: int, prevalence: float | None = None
) -> ReportTable:
    """The first models and baselines of a test set's leaderboard, `most` of each; the title says
    on how many cases. The most important columns stand first, since a narrow terminal shows no
    others.

    `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    trained, baselines = _parts(board)
    shown = [*trained[:most], *baselines[:most]]
    marked = not only_random_weights(board)
    records = [_record(row, marked, prevalence) for row in shown]
    return ReportTable.of(_title(board, trained, prevalence), records)


def left_out(board: Collection[EvaluationRow], most: int) -> str | None:
    """`and 50 more models`: what the table does not show; None where it shows everything."""
    hidden = [len(rows) - most for rows in _parts(board)]
    counts = [
        f"{n} more {kind if n > 1 else kind.removesuffix('s')}"
        for n, kind in zip(hidden, ("models", "baselines"), strict=True)
        if n > 0
    ]
    return f"and {' and '.join(counts)}" if counts else None


def only_random_weights(board: Collection[EvaluationRow]) -> bool:
    """Whether no model of the board has real weights: one sentence says so then, instead of a mark
    behind every name.
    """
    weighted_rows = [row for row in board if row.precision is not None]
    return bool(weighted_rows) and all(row.random_weights for row in weighted_rows)


def _parts(board: Collection[EvaluationRow]) -> tuple[list[EvaluationRow], list[EvaluationRow]]:
    """Trained models, and baselines."""
    trained = [row for row in board if row.recipe_kind != "baseline"]
    return trained, [row for row in board if row.recipe_kind == "baseline"]


def _title(
    board: Collection[EvaluationRow], trained: Sequence[EvaluationRow], prevalence: float | None
) -> str:
    row = next(iter(board))
    sentences = [
        f"{_counts(trained)}, best first, then baselines, on {row.cases} test cases, "
        f"{row.emergencies} of them emergencies. In brackets: 95 % intervals."
    ]
    if prevalence is not None:
        sentences.append(f"ED precision and F2 are restated at {percent(prevalence)} ED.")
    if trained and only_random_weights(board):
        sentences.append(ALL_RANDOM)

    sentences += [f"{note[0].upper()}{note[1:]}." for note in reference_notes(board)]
    return " ".join(sentences)


def _counts(rows: Sequence[EvaluationRow]) -> str:
    """E.g. `18 trained models and 6 moved adapters`."""
    trained = sum(row.is_trained for row in rows)
    moved = len(rows) - trained
    counts = [
        counted(count, kind)
        for count, kind in ((trained, "trained model"), (moved, "moved adapter"))
        if count
    ]
    return " and ".join(counts) or "0 trained models"


def _record(row: EvaluationRow, marked: bool, prevalence: float | None) -> dict[str, str]:
    """`marked`: the name says where weights are random."""
    precision, f2 = figures_at(row, prevalence)
    stored = row.stored_bytes
    record = {
        "experiment": listed_name(row, marked),
        "accu-\nracy": figure(row.accuracy, digits=2),
        "ED recall": ed_recall_figure(
            row.ed_recall, row.ed_recall_low, row.ed_recall_high, digits=2
        ),
        "over-\ntriage": figure(row.over_triage, digits=2),
        "gates": verdict(row).replace("\n", " "),
        "ED F2": figure(f2, digits=2),
        "macro-F1": figure(row.macro_f1, digits=2),
        "MB": figure(stored / 1e6, digits=1) if stored else "-",
        "ED pre-\ncision": figure(precision, digits=2),
        "test\nloss": figure(row.test_loss, digits=2),
        "trained\nin": clock(row.train_seconds) if is_number(row.train_seconds) else "-",
    }
    if prevalence is None:
        return record
    return {name: record[name] for name in dict.fromkeys((*RESTATED, *record))}
