"""Experiments on one test set: the whole leaderboard, its overview, and what has landed while a sweep runs."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from flows.report.figures import (
    clock,
    counted,
    ed_recall_figure,
    figure,
    is_number,
    listed_name,
    percent,
    verdict,
)
from flows.report.gates import figures_at
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, rows_as
from tasks.landing import some_results_wait
from tasks.precisions import UNPACKED, reference_note
from tasks.runtime.errors import TriageError
from warehouse.connect import listed, warehouse_path

LEADERBOARD = (
    "Experiments on the test set, best first: those that pass the gates by least over-triage, "
    "then provisional and unsafe ones by ED recall; baselines at the foot. In brackets: 95 % "
    "intervals"
)


def by_test_set(board: Collection[EvaluationRow]) -> list[list[EvaluationRow]]:
    """The rows of each test set, in their order: figures on other cases cannot be compared."""
    sets: dict[str, list[EvaluationRow]] = {}
    for row in board:
        sets.setdefault(row.set_digest, []).append(row)
    return list(sets.values())


def named_sets(board: Collection[EvaluationRow]) -> list[tuple[str, list[EvaluationRow]]]:
    """The rows of each test set behind its name in titles, which is empty where there is one set."""
    sets = by_test_set(board)
    return [(_set_name(rows) if len(sets) > 1 else "", rows) for rows in sets]


def _set_name(rows: list[EvaluationRow]) -> str:
    """`test set 3f2a1b (60 cases, 20 of them emergencies)`."""
    row = rows[0]
    digest = row.set_digest[:6]
    return f"test set {digest} ({row.cases} cases, {row.emergencies} of them emergencies)"


def leaderboard(board: Collection[EvaluationRow], prevalence: float | None = None) -> ReportTable:
    """One row per experiment, in the order of `board`, the rows of the view.

    `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    table = ReportTable.of(
        LEADERBOARD, [_record(row, prevalence) for row in board], '"FROM leaderboard"'
    )
    return table.with_notes(reference_notes(board))


def reference_notes(board: Collection[EvaluationRow]) -> list[str]:
    """What does not follow from the references of `board` that were quantised before, each once."""
    unpacked = [row.precision for row in board if (row.precision or "").startswith(UNPACKED)]
    notes = [reference_note(precision) for precision in unpacked]
    return list(dict.fromkeys(note for note in notes if note))


def _record(row: EvaluationRow, prevalence: float | None) -> dict[str, str]:
    precision, f2 = figures_at(row, prevalence)
    # The interval is that of the F2 at the prevalence of the set.
    f2_interval = (row.ed_f2_low, row.ed_f2_high) if prevalence is None else (None, None)
    share = row.ed_prevalence if prevalence is None else prevalence
    return {
        "experiment": listed_name(row),
        "accuracy": figure(row.accuracy, row.accuracy_low, row.accuracy_high),
        "ED recall": ed_recall_figure(row.ed_recall, row.ed_recall_low, row.ed_recall_high),
        "over-triage": figure(row.over_triage, row.over_triage_low, row.over_triage_high),
        "gates": verdict(row).replace("\n", " "),
        "ED F2": figure(f2, *f2_interval),
        "ED precision": f"{figure(precision)} of {percent(share)} ED",
        "macro-F1": figure(row.macro_f1),
        "stored MB": figure(row.stored_bytes / 1e6, digits=1) if row.stored_bytes else "-",
        "test loss": figure(row.test_loss),
        "trained in": clock(row.train_seconds) if is_number(row.train_seconds) else "-",
    }


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
    records = [_overview_record(row, marked, prevalence) for row in shown]
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


def _overview_record(row: EvaluationRow, marked: bool, prevalence: float | None) -> dict[str, str]:
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


_known: dict[Path, dict[str, LandedResult]] = {}  # by warehouse and evaluation


class LandedResult(Row):
    """A row of `evaluation_summary`: what a landed experiment reached on the test set."""

    def __str__(self) -> str:
        recall = ed_recall_figure(self.ed_recall, self.ed_recall_low, self.ed_recall_high, digits=2)
        return f"ED recall {recall}  {verdict(self)}".replace("\n", " ")


def landed_results(evaluation_ids: Sequence[str]) -> list[LandedResult]:
    """The result on the test set; empty if the warehouse cannot be read at the moment.

    What had landed before the first question of this process is read at once, and each result once:
    opening the warehouse takes longer than reading it.
    """
    if some_results_wait():
        return []

    results = _known.setdefault(warehouse_path(), {})
    if missing := [id for id in evaluation_ids if id not in results]:
        which = f"AND evaluation_id IN {listed(missing)}" if results else ""
        with contextlib.suppress(TriageError):  # a sweep need not stop for figures
            view = f"evaluation_summary WHERE evaluation_set = 'test' {which}"
            results.update({row.evaluation_id: row for row in rows_as(LandedResult, view)})

    return [results[id] for id in evaluation_ids if id in results]
