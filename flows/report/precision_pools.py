"""Every precision against its reference, averaged over adapters."""

from __future__ import annotations

from collections.abc import Collection
from itertools import groupby

from flows.report.figures import figure
from flows.report.pairs import verdict_words
from flows.report.table import Table
from warehouse.precision_pools import PrecisionFigure, precision_figures

TITLE = (
    "Precisions against their reference, the mean over adapters that were judged at both; 95 % "
    "bands over cases hold for all figures of a precision at once"
)
# Figures of a row, with the rule that decides; the AUROC needs none.
_COLUMNS = (
    ("accuracy", "argmax", "accuracy"),
    ("ed_recall", "primary", "ED recall"),
    ("ed_auroc", "argmax", "ED AUROC"),
    ("over_triage", "primary", "over-triage"),
)


def precision_pools(ids: Collection[str] | None = None) -> Table:
    """A row per base model, set of cases and precision; `ids`: the evaluations of the study."""
    by_precision = groupby(precision_figures(ids), key=_precision)
    return Table.of(TITLE, [_record(list(figures)) for _, figures in by_precision])


def _precision(row: PrecisionFigure) -> tuple[str, str, str, str, float]:
    return row.base_model, row.evaluation_set, row.set_digest, row.precision, row.bytes_ratio


def _record(figures: list[PrecisionFigure]) -> dict[str, str]:
    first = figures[0]
    on_set = "" if first.evaluation_set == "test" else f"\n{first.evaluation_set}"
    record = {
        "precision": f"{first.base_model} {first.precision}{on_set}\nagainst {first.reference}",
        "bytes": f"x{first.bytes_ratio:.2f}",
        "adapters": str(first.adapters),
    }
    by_name = {(row.metric, row.rule): row for row in figures}
    for metric, rule, name in _COLUMNS:
        row = by_name.get((metric, rule))
        record[name] = "n/a" if row is None else _cell(row)

    return record


def _cell(row: PrecisionFigure) -> str:
    difference = figure(row.difference, row.low, row.high, sign=True, below=True)
    return f"{difference}\n{verdict_words(row.verdict)}"
