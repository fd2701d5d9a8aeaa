"""Every precision against its reference, averaged over the adapters of a recipe."""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import figure
from flows.report.names import random_mark
from flows.report.pairs import verdict_words
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow
from tasks.judging.point_metrics import ED_AUROC
from warehouse.comparison.pooled import Pooled
from warehouse.comparison.precision_pools import PrecisionPool, Range, precision_pools

TITLE = (
    "Precisions against their reference, the mean over a recipe's adapters that were judged at "
    "both: accuracy and AUROC by the most probable label, the others by the recipe's own rule; 95 % bands over "
    "cases hold for all figures of a line; verdicts at 2 points, between seeds too; below "
    "them the lowest and the highest difference of one adapter"
)
_COLUMNS = {
    "accuracy": "accuracy",
    "ed_recall": "ED recall",
    ED_AUROC: "ED AUROC",
    "over_triage": "over-triage",
}


def pooled_over_adapters(
    board: Collection[EvaluationRow], ids: Collection[str] | None = None
) -> ReportTable:
    """A row per base model of `board`, recipe, origin of its adapters, set of cases and precision;
    of test sets, those of `board` alone.

    `ids`: the evaluations of the study.
    """
    base_models = {row.base_model for row in board}
    digests = {row.set_digest for row in board}
    pools = [
        pool
        for pool in precision_pools(ids)
        if pool.base_model in base_models
        and (pool.evaluation_set != "test" or pool.set_digest in digests)
    ]
    table = ReportTable.of(TITLE, [_record(pool) for pool in pools], '"FROM precision_comparison"')
    return table.with_notes(pool.note for pool in pools)


def _record(pool: PrecisionPool) -> dict[str, str]:
    name = f"{pool.base_model} {pool.precision} {pool.recipe} {pool.adapter}{random_mark(pool)}"
    on_set = "" if pool.evaluation_set == "test" else f"\n{pool.evaluation_set}"
    accuracy = pool.figures["accuracy"]
    left_out = f"\n{accuracy.pairs_left_out} left out" if accuracy.pairs_left_out else ""
    record = {
        "precision": f"{name}{on_set}\nagainst {pool.reference}",
        "bytes": f"x{figure(pool.bytes_ratio, digits=2)}",
        "adapters": f"{accuracy.pairs}{left_out}",
    }
    return record | {
        name: _cell(pool.figures[metric], pool.ranges[metric]) for metric, name in _COLUMNS.items()
    }


def _cell(row: Pooled, extremes: Range) -> str:
    difference = figure(row.difference, row.low, row.high, sign=True, below=True)
    cell = f"{difference}\n{row.note or verdict_words(row.verdict)}"
    if extremes is None or row.pairs < 2:
        return cell

    lowest, highest = (figure(value, sign=True) for value in extremes)
    return f"{cell}\n{lowest} to {highest}"
