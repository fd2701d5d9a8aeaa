"""The gates of every trained model: value, the bound that PASS needs, and the bound for all looks."""

from __future__ import annotations

from flows.html_report.marks import Axis, Dot, dots
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    full_name,
    labels_of,
    number,
    panel_name,
    some,
)
from flows.report.figures import gate_figure, is_number
from flows.report.gates import FALSE_NEGATIVES, NAMES, looks
from flows.report.gates import gates as gates_table
from flows.report.typed_rows import EvaluationRow, Row, rows_of
from warehouse.connect import listed

VALUE = "value"
BOUND = "bound"
ADJUSTED = "bound for all looks"
READING = (
    "For each gate the value, the bound that must hold for PASS, and the bound that allows for the "
    "number of models that were looked at on the same cases; dashed: the threshold. ED false "
    "negatives are 1 minus ED recall: no further evidence, so they have no chart of their own."
)
MISSING = (
    "No evaluation of a trained model of this study has gates. A sweep gives them, e.g. triage "
    "sweep demo."
)


def gates(study: ReportedStudy) -> Section:
    """A forest plot for each gate."""
    trained_rows = [row for row in study.board if row.recipe_kind != "baseline"]
    ids = {row.evaluation_id for row in trained_rows}
    rows = [
        row for row in rows_of(f"gate WHERE evaluation_id IN {listed(ids)}") if is_number(row.value)
    ]
    heading = "Gates"
    if not rows:
        return Section("gates", heading, missing=MISSING)

    looked = looks()
    panels = [
        _panel(
            gate, trained_rows, {row.evaluation_id: row for row in rows if row.gate == gate}, looked
        )
        for gate in NAMES
        if gate != FALSE_NEGATIVES and any(row.gate == gate for row in rows)
    ]
    findings = _findings(trained_rows, rows)

    return Section(
        "gates", heading, READING, findings, panels, [gates_table(study.board, study.ids)]
    )


def _panel(
    gate: str,
    trained_rows: list[EvaluationRow],
    rows: dict[str, Row],
    looked: dict[tuple[str, str], Row],
) -> Panel:
    judged_rows = [evaluation for evaluation in trained_rows if evaluation.evaluation_id in rows]
    labels = labels_of(judged_rows)
    marks: list[Dot] = []
    for evaluation in judged_rows:
        row = rows[evaluation.evaluation_id]
        label = labels[evaluation.evaluation_id]
        look = looked.get((evaluation.evaluation_id, gate))
        adjusted = look.bound_adjusted if look else None
        values = (row.value, row.bound, adjusted)
        named_values = zip((VALUE, BOUND, ADJUSTED), values, strict=True)
        marks += [Dot(label, name, number(value)) for name, value in named_values]

    thresholds = [rows[judged_rows[0].evaluation_id].threshold]
    names = [VALUE, BOUND, ADJUSTED]
    axis = Axis.of_shares(NAMES[gate], [*(row.value for row in marks), *thresholds])
    drawing = dots(marks, axis, names, thresholds, overlaid=True)
    texts = [
        f"{full_name(evaluation)} {_text(rows[evaluation.evaluation_id])}"
        for evaluation in judged_rows
    ]
    alt = f"Gate {NAMES[gate]}, threshold {thresholds[0]:g}: {some(texts)}."

    return Panel(panel_name("gates", gate), NAMES[gate], alt, drawing)


def _text(row: Row) -> str:
    value = gate_figure(row.value, row.threshold)
    bound = f"bound {gate_figure(row.bound, row.threshold)}" if is_number(row.bound) else "no bound"
    return f"{row.state} ({value}, {bound})"


def _findings(trained_rows: list[EvaluationRow], rows: list[Row]) -> list[str]:
    names = {row.evaluation_id: full_name(row) for row in trained_rows}
    sentences = []
    for gate in NAMES:
        of_gate = [row for row in rows if row.gate == gate and gate != FALSE_NEGATIVES]
        if not of_gate:
            continue
        passing = sum(row.state == "PASS" for row in of_gate)
        best_row = max(of_gate, key=lambda row: row.value or 0)
        sentences.append(
            f"{NAMES[gate]} >= {best_row.threshold:g}: {passing} of {len(of_gate)} PASS; highest "
            f"{names[best_row.evaluation_id]}: {_text(best_row)}."
        )

    return sentences
