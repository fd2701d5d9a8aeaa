"""Learning curves: training and validation loss by update."""

from __future__ import annotations

from flows.html_report.marks import Axis, BandPoint, curves
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    full_name,
    panel_name,
    panels_of,
    series,
    some,
)
from flows.report.figures import figure
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, rows_of
from warehouse.connect import listed

MOST_POINTS = 40  # of a curve: more cannot be told apart on the page
SPLITS = {"train": "training", "valid": "validation"}
READING = (
    "Loss of the training batches (solid) and of the validation cases (dashed), by update. Every "
    "curve is one run with one seed, so there is no interval: runs with other seeds show how much "
    "it varies. Objectives differ between recipes, so that losses of two recipes cannot be compared. "
    f"Curves of more than {MOST_POINTS} points are thinned."
)
MISSING = (
    "No training of this study has landed a curve. A sweep gives them, e.g. triage sweep demo."
)
# Every so many points, and the last one, where the curve ends.
SQL = """(
    FROM training_curve
    WHERE training_id IN {ids} AND loss IS NOT NULL
    WINDOW
        updates AS (PARTITION BY training_id, split ORDER BY iteration),
        whole AS (PARTITION BY training_id, split)
    QUALIFY row_number() OVER updates = count(*) OVER whole
        OR (row_number() OVER updates - 1) % ceil(count(*) OVER whole / {most})::BIGINT = 0
    ORDER BY training_id, split, iteration
)"""


def learning(study: ReportedStudy) -> Section:
    """A panel for what differs in precision alone."""
    ids = listed({row.training_id for row in study.board})
    rows = rows_of(SQL.format(ids=ids, most=MOST_POINTS))
    heading = "Learning curves"
    if not rows:
        return Section("learning", heading, missing=MISSING)

    by_training: dict[str, list[Row]] = {}
    for row in rows:
        by_training.setdefault(row.training_id, []).append(row)

    trained_rows = [row for row in study.board if row.training_id in by_training]
    panels = [
        _panel(study, name, group, by_training) for name, group in panels_of(trained_rows).items()
    ]
    table = _table(trained_rows, by_training)
    return Section("learning", heading, READING, _findings(trained_rows), panels, [table])


def _panel(
    study: ReportedStudy, name: str, group: list[EvaluationRow], rows: dict[str, list[Row]]
) -> Panel:
    marks = [
        BandPoint(
            series(evaluation), row.iteration, row.loss, kind=SPLITS.get(row.split, row.split)
        )
        for evaluation in group
        for row in rows[evaluation.training_id]
    ]
    precisions = {series(evaluation) for evaluation in group}
    names = [precision for precision in study.precisions if precision in precisions]
    kinds = [name for name in SPLITS.values() if any(row.kind == name for row in marks)]
    drawing = curves(marks, Axis("update", zero=True), Axis("loss", zero=True), names, kinds)
    texts = [_text(evaluation) for evaluation in group]
    alt = f"Learning curves of {name}. {some(texts)}."

    return Panel(panel_name("learning", name), name, alt, drawing)


def _text(row: EvaluationRow) -> str:
    return (
        f"{full_name(row)}: training loss {figure(row.train_loss)}, validation loss "
        f"{figure(row.valid_loss)}"
    )


def _findings(trained_rows: list[EvaluationRow]) -> list[str]:
    """The lowest value of each recipe: another recipe's objective is another one."""
    by_recipe: dict[str, list[EvaluationRow]] = {}
    for row in trained_rows:
        if row.valid_loss is not None:
            by_recipe.setdefault(row.recipe, []).append(row)

    best_rows = {
        recipe: min(rows, key=lambda row: row.valid_loss or 0) for recipe, rows in by_recipe.items()
    }
    return [
        f"Lowest validation value of {recipe} (its own objective, one run, no interval): "
        f"{_text(row)}."
        for recipe, row in best_rows.items()
    ]


def _table(trained_rows: list[EvaluationRow], rows: dict[str, list[Row]]) -> ReportTable:
    records = [
        {
            "training": full_name(evaluation),
            "split": SPLITS.get(row.split, row.split),
            "update": str(row.iteration),
            "loss": figure(row.loss),
        }
        for evaluation in trained_rows
        for row in rows[evaluation.training_id]
    ]
    return ReportTable.of("Loss by update", records)
