"""Decision curves: the net benefit of sending cases to ED from a threshold on p(ED) on."""

from __future__ import annotations

from flows.html_report.marks import Axis, BandPoint, curves
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    by_evaluation,
    full_name,
    named_rows,
    number,
    panel_name,
    panels_of,
    series,
    some,
)
from flows.report.calibration import THRESHOLDS, with_probabilities
from flows.report.figures import figure
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row

MODEL = "by p(ED)"
EVERYBODY = "everybody to ED"
SHOWN = THRESHOLDS[-1]  # the threshold of which the sentences speak
LOWEST = -0.1  # below, a rule is worse than sending nobody by so much that the rest is not seen
READING = (
    "Net benefit (true alarms a case, less false ones weighted by the odds of the threshold) of "
    "sending a case to ED where p(ED) reaches the threshold, with 95 % bands; dashed: everybody "
    "to ED; nobody to ED is 0. A model is worth its use where its curve is above both."
)
EARLIER_VERSION = (
    "No evaluation of this study has a decision curve, since an earlier version judged them. The "
    "next sweep judges stored scores again and trains nothing."
)
NO_PROBABILITIES = (
    "No evaluation of this study has a decision curve: constant answers have no probabilities, "
    "and no model has finished. Its sweep makes one."
)


Curves = dict[str, list[Row]]


def decision_curve(study: ReportedStudy) -> Section:
    """A panel for what differs in precision alone."""
    by_id = by_evaluation(named_rows("decision_curve", study.ids))
    scored_rows = with_probabilities(study.board)
    judged_rows = [row for row in scored_rows if row.evaluation_id in by_id]
    heading = "Decision curves"
    if not judged_rows:
        missing = EARLIER_VERSION if scored_rows else NO_PROBABILITIES
        return Section("decision-curves", heading, missing=missing)

    panels = [_panel(study, name, group, by_id) for name, group in panels_of(judged_rows).items()]
    findings = _findings(judged_rows, by_id)
    table = _table(judged_rows, by_id)
    return Section("decision-curves", heading, READING, findings, panels, [table])


def _benefit(row: Row) -> str:
    return figure(row.net_benefit, row.low, row.high)


def _panel(study: ReportedStudy, name: str, group: list[EvaluationRow], rows: Curves) -> Panel:
    marks = [
        BandPoint(
            series(evaluation),
            row.threshold,
            row.net_benefit,
            number(row.low),
            number(row.high),
            MODEL,
        )
        for evaluation in group
        for row in rows[evaluation.evaluation_id]
    ]
    # Everybody to ED does not depend on the model, only on the cases.
    first = rows[group[0].evaluation_id]
    marks += [BandPoint(EVERYBODY, row.threshold, row.always_ed, kind=EVERYBODY) for row in first]
    precisions = {series(evaluation) for evaluation in group}
    names = [*(precision for precision in study.precisions if precision in precisions), EVERYBODY]
    highest = max(row.y or 0 for row in marks)
    x = Axis("threshold on p(ED)")
    y = Axis("net benefit", (LOWEST, 1.1 * highest + 0.01))
    drawing = curves(marks, x, y, names, [MODEL, EVERYBODY], lines=[0])
    texts = [_text(evaluation, rows) for evaluation in group]
    alt = f"Decision curves of {name}. Net benefit at threshold {SHOWN:g}: {some(texts)}."

    return Panel(panel_name("decision-curves", name), name, alt, drawing)


def _at(rows: list[Row]) -> Row:
    """The row nearest to the threshold of which the sentences speak."""
    return min(rows, key=lambda row: abs(row.threshold - SHOWN))


def _text(evaluation: EvaluationRow, rows: Curves) -> str:
    return f"{series(evaluation)} {_benefit(_at(rows[evaluation.evaluation_id]))}"


def _findings(judged_rows: list[EvaluationRow], rows: Curves) -> list[str]:
    at = {full_name(evaluation): _at(rows[evaluation.evaluation_id]) for evaluation in judged_rows}
    better = sum(row.verdict == "better than both" for row in at.values())
    best_name = max(at, key=lambda name: at[name].net_benefit)
    return [
        f"At the threshold {SHOWN:g}, {better} of {len(at)} are better than sending everybody and "
        f"than sending nobody, intervals included; the highest: {best_name}, "
        f"{_benefit(at[best_name])}."
    ]


def _table(judged_rows: list[EvaluationRow], rows: Curves) -> ReportTable:
    records = [
        {
            "experiment": full_name(evaluation),
            "threshold": f"{row.threshold:g}",
            "net benefit": _benefit(row),
            "everybody to ED": figure(row.always_ed),
            "": row.verdict,
        }
        for evaluation in judged_rows
        for row in rows[evaluation.evaluation_id]
    ]
    return ReportTable.of("Net benefit by threshold", records)
