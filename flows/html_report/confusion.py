"""Confusion matrices of the primary rule."""

from __future__ import annotations

from flows.html_report.marks import Cell, matrices
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    and_others,
    by_evaluation,
    full_name,
    named_rows,
    panel_name,
    panels_of,
    series,
    some,
)
from flows.report.figures import ed_recall_figure
from flows.report.rules import confusion as confusion_table
from flows.report.typed_rows import EvaluationRow, Row
from tasks.spec import LABELS

READING = (
    "Cases by true label (lines) and decision of the primary rule (columns): the darker, the "
    "larger the share of the label's cases. The first line holds the emergencies; what stands in "
    "it outside the first column was missed."
)
MISSING = (
    "No evaluation of this study has decisions of its primary rule. A sweep gives them, e.g. "
    "triage sweep demo."
)


def confusion(study: ReportedStudy) -> Section:
    """Matrices side by side of what differs in precision alone."""
    rows = by_evaluation(named_rows("confusion", study.ids))
    judged_rows = [row for row in study.board if row.evaluation_id in rows]
    heading = "Confusion matrices"
    if not judged_rows:
        return Section("confusion", heading, missing=MISSING)

    panels = [_panel(study, name, group, rows) for name, group in panels_of(judged_rows).items()]
    table = confusion_table(judged_rows)
    return Section("confusion", heading, READING, _findings(judged_rows), panels, [table])


def _panel(
    study: ReportedStudy, name: str, group: list[EvaluationRow], rows: dict[str, list[Row]]
) -> Panel:
    cells = [
        cell
        for evaluation in group
        for row in rows[evaluation.evaluation_id]
        for cell in _cells(series(evaluation), row)
    ]
    precisions = {series(evaluation) for evaluation in group}
    names = [precision for precision in study.precisions if precision in precisions]
    texts = [_text(evaluation, rows[evaluation.evaluation_id]) for evaluation in group]
    alt = f"Confusion matrices of {name}. {some(texts)}."

    return Panel(panel_name("confusion", name), name, alt, matrices(cells, names, LABELS))


def _cells(name: str, row: Row) -> list[Cell]:
    counts = [row.decided_ed or 0, row.decided_gp or 0, row.decided_home or 0]
    whole = sum(counts) or 1
    return [
        Cell(name, row.label, str(decision), int(count), float(count) / float(whole))
        for decision, count in zip(LABELS, counts, strict=True)
    ]


def _text(evaluation: EvaluationRow, rows: list[Row]) -> str:
    emergencies = next((row for row in rows if row.label == "ED"), None)
    if emergencies is None:
        return f"{series(evaluation)}: no emergency among the cases"
    return (
        f"{series(evaluation)}: of the emergencies {emergencies.decided_ed or 0:.0f} sent to ED, "
        f"{emergencies.decided_gp or 0:.0f} to GP, {emergencies.decided_home or 0:.0f} home"
    )


def _findings(judged_rows: list[EvaluationRow]) -> list[str]:
    trained_rows = [row for row in judged_rows if row.is_trained and row.ed_recall is not None]
    if not trained_rows:
        return []

    ranked_rows = sorted(trained_rows, key=lambda row: row.ed_recall or 0)
    shares = [row.ed_recall or 0 for row in ranked_rows]
    if len(ranked_rows) > 1 and shares[0] == shares[-1]:
        return [f"All trained models send the same share of emergencies to ED: {shares[0]:.3f}."]

    sentences = [
        f"{word} share of emergencies sent to ED by a trained model: "
        f"{full_name(row)}{and_others(shares, row.ed_recall)}, "
        f"{ed_recall_figure(row.ed_recall, row.ed_recall_low, row.ed_recall_high)}."
        for word, row in (("Highest", ranked_rows[-1]), ("Lowest", ranked_rows[0]))
    ]
    return sentences if len(trained_rows) > 1 else sentences[:1]
