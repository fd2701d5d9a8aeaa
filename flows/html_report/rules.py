"""ED recall against over-triage, for each decision rule."""

from __future__ import annotations

from dataclasses import dataclass

from flows.html_report.marks import Axis, PlanePoint, points
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    full_name,
    number,
    panel_name,
    some,
)
from flows.report.figures import ed_recall_figure, figure, is_number
from flows.report.rules import RULES
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, metrics_named

READING = (
    "Each point is a model under one decision rule: the share of all cases that it sends somewhere "
    "more urgent than labelled (to the left is better), and the share of emergencies that it "
    "sends to ED (up is better), with 95 % intervals. One model has a point for each rule, from "
    "the same probabilities."
)
MISSING = (
    "No evaluation of this study has ED recall and over-triage under a decision rule. A sweep "
    "gives them, e.g. triage sweep demo."
)
METRICS = ("ed_recall", "over_triage")


@dataclass(frozen=True)
class RuleFigures:
    """ED recall and over-triage of an evaluation under a rule."""

    evaluation: EvaluationRow
    rule: str
    ed_recall: Row
    over_triage: Row

    @property
    def text(self) -> str:
        return (
            f"{full_name(self.evaluation)} by {RULES[self.rule]}: ED recall "
            f"{_ed_recall(self.ed_recall)}, over-triage {_figure(self.over_triage)}"
        )


def rules(study: ReportedStudy) -> Section:
    """A plane for each base model; baselines without a model have their own."""
    rows = _rows(study)
    heading = "ED recall against over-triage, by decision rule"
    if not rows:
        return Section("rules", heading, missing=MISSING)

    by_model: dict[str, list[RuleFigures]] = {}
    for row in rows:
        evaluation = row.evaluation
        name = evaluation.base_model if evaluation.precision else "without a language model"
        by_model.setdefault(name, []).append(row)

    panels = [_panel(study, name, group) for name, group in by_model.items()]
    return Section("rules", heading, READING, _findings(rows), panels, [_table(rows)])


def _rows(study: ReportedStudy) -> list[RuleFigures]:
    metrics = metrics_named(METRICS)
    return [
        RuleFigures(evaluation, rule, recall, over)
        for evaluation in study.board
        for rule in RULES
        if (recall := metrics.get((evaluation.evaluation_id, rule, "ed_recall")))
        and (over := metrics.get((evaluation.evaluation_id, rule, "over_triage")))
        and is_number(recall.value)
        and is_number(over.value)
    ]


def _panel(study: ReportedStudy, name: str, group: list[RuleFigures]) -> Panel:
    kinds = [
        precision for precision in study.precisions if any(_kind(row) == precision for row in group)
    ]
    marks = [
        PlanePoint(
            series=RULES[row.rule],
            x=row.over_triage.value,
            y=row.ed_recall.value,
            x_low=number(row.over_triage.low),
            x_high=number(row.over_triage.high),
            y_low=number(row.ed_recall.low),
            y_high=number(row.ed_recall.high),
            kind=_kind(row),
        )
        for row in group
    ]
    x = Axis.of_shares("over-triage, share of all cases", _ends(group, "over_triage"))
    y = Axis.of_shares("ED recall", _ends(group, "ed_recall"))
    drawing = points(marks, x, y, list(RULES.values()), kinds)
    alt = f"ED recall against over-triage, {name}: {some([row.text for row in group])}."

    return Panel(panel_name("rules", name), name, alt, drawing)


def _ends(group: list[RuleFigures], name: str) -> list[float | None]:
    """What an axis has to hold: figures and the ends of their intervals."""
    metrics: list[Row] = [getattr(row, name) for row in group]
    return [number(end) for row in metrics for end in (row.low, row.value, row.high)]


def _kind(row: RuleFigures) -> str:
    return row.evaluation.precision or "no language model"


def _ed_recall(metric: Row) -> str:
    return ed_recall_figure(metric.value, metric.low, metric.high)


def _figure(metric: Row) -> str:
    return figure(metric.value, metric.low, metric.high)


def _findings(rows: list[RuleFigures]) -> list[str]:
    trained_rows = [row for row in rows if row.evaluation.is_trained]
    best_rows = [
        max(group, key=lambda row: row.ed_recall.value or 0)
        for rule in RULES
        if (group := [row for row in trained_rows if row.rule == rule])
    ]
    return [f"Highest ED recall of a trained model: {row.text}." for row in best_rows]


def _table(rows: list[RuleFigures]) -> ReportTable:
    records = [
        {
            "experiment": full_name(row.evaluation),
            "rule": RULES[row.rule] + (" *" if row.rule == row.evaluation.primary_rule else ""),
            "ED recall": _ed_recall(row.ed_recall),
            "over-triage": _figure(row.over_triage),
        }
        for row in rows
    ]
    return ReportTable.of("ED recall and over-triage by rule (* primary)", records)
