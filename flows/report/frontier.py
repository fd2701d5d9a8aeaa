"""Every precision against its reference, and the frontier of bytes against safety."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.report.figures import ed_recall_figure, figure
from flows.report.names import random_mark, recipe_name
from flows.report.pairs import VERDICT, verdict_words
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, typed_rows

COMPARISON = (
    "Precisions against their reference, paired by case; from 4bit: one adapter, trained at 4 "
    "bits, with its own threshold at each"
)
FRONTIER = (
    "Bytes against ED recall and macro F1 (primary rule); dominated: another precision needs no "
    "more bytes, is as good in both, and better in one of the three"
)
PLAIN = {"4bit", "8bit"}  # without another one, 4 against 8 bits says it all


@dataclass(frozen=True)
class _EvaluatedRow:
    """The columns that both views have: which evaluation a row is of."""

    base_model: str
    recipe: str
    seed: int
    adapter: str
    evaluation_set: str
    set_digest: str
    precision: str
    note: str | None
    random_weights: bool | None
    evaluation_id: str


@dataclass(frozen=True)
class PrecisionRow(_EvaluatedRow):
    """A row of `precision_comparison`; every difference is the precision minus the reference."""

    reference: str
    bits_per_weight: float | None
    accuracy_diff: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    accuracy_verdict: str | None
    ed_recall_diff: float | None
    ed_recall_low: float | None
    ed_recall_high: float | None
    ed_recall_verdict: str | None
    over_triage_diff: float | None
    over_triage_low: float | None
    over_triage_high: float | None
    loss_diff: float | None
    loss_low: float | None
    loss_high: float | None


@dataclass(frozen=True)
class FrontierRow(_EvaluatedRow):
    """A row of `frontier`."""

    stored_bytes: int
    bits_per_weight: float
    ed_recall: float | None
    macro_f1: float | None
    dominated: bool | None
    dominated_by: str | None
    compute_path: str | None

    @property
    def group(self) -> tuple[str, str, int, str, str, str]:
        """The precisions among which one may be dominated."""
        arm = self.base_model, self.recipe, self.seed, self.adapter
        return *arm, self.evaluation_set, self.set_digest


def against_reference(
    board: Collection[EvaluationRow], ids: Collection[str] | None = None
) -> ReportTable:
    """The latest pairs of the base models of `board` with their reference.

    `ids`: the evaluations of the study.
    """
    pairs = typed_rows(PrecisionRow, "precision_comparison", only=ids)
    rows = [row for row in pairs if _is_of(row, board)]
    table = ReportTable.of(
        COMPARISON, [_comparison_record(row) for row in rows], '"FROM precision_comparison"'
    )
    return table.with_notes(row.note for row in rows)


def frontier(board: Collection[EvaluationRow], ids: Collection[str] | None = None) -> ReportTable:
    """The frontiers of the base models of `board` that have another precision than 4 or 8 bits.

    `ids`: the evaluations of the study.
    """
    rows = [row for row in typed_rows(FrontierRow, "frontier", only=ids) if _is_of(row, board)]
    groups = {row.group for row in rows if row.precision not in PLAIN}
    shown_rows = [row for row in rows if row.group in groups]
    table = ReportTable.of(
        FRONTIER, [_frontier_record(row) for row in shown_rows], '"FROM frontier"'
    )
    return table.with_notes(row.note for row in shown_rows)


def _is_of(row: _EvaluatedRow, board: Collection[EvaluationRow]) -> bool:
    if row.evaluation_set == "test":
        return row.evaluation_id in {evaluation.evaluation_id for evaluation in board}
    return row.base_model in {evaluation.base_model for evaluation in board}


def _name(row: _EvaluatedRow) -> str:
    adapter = "" if row.adapter == "own" else f" {row.adapter}"
    on_set = "" if row.evaluation_set == "test" else f"\n{row.evaluation_set}"
    recipe = recipe_name(f"{row.recipe}{adapter}", row.seed)
    return f"{row.base_model} {row.precision} {recipe}{random_mark(row)}{on_set}"


def _comparison_record(row: PrecisionRow) -> dict[str, str]:
    return {
        "precision": f"{_name(row)}\nagainst {row.reference}",
        "bits per\nweight": figure(row.bits_per_weight, digits=2),
        "accuracy": _difference(row.accuracy_diff, row.accuracy_low, row.accuracy_high),
        VERDICT: verdict_words(row.accuracy_verdict),
        "ED recall": _difference(row.ed_recall_diff, row.ed_recall_low, row.ed_recall_high),
        f"ED {VERDICT}": verdict_words(row.ed_recall_verdict),
        "over-triage": _difference(row.over_triage_diff, row.over_triage_low, row.over_triage_high),
        "test loss": _difference(row.loss_diff, row.loss_low, row.loss_high),
    }


def _difference(value: float | None, low: float | None, high: float | None) -> str:
    return figure(value, low, high, sign=True, below=True)


def _frontier_record(row: FrontierRow) -> dict[str, str]:
    return {
        "precision": _name(row),
        "MB": figure(row.stored_bytes / 1e6, digits=1),
        "bits per\nweight": figure(row.bits_per_weight, digits=2),
        "ED recall": ed_recall_figure(row.ed_recall),
        "macro F1": figure(row.macro_f1),
        "dominated by": row.dominated_by or ("n/a" if row.dominated is None else "-"),
        "computed": row.compute_path or "n/a",
    }
