"""ED recall of subgroups, for the first models of the leaderboard."""

from __future__ import annotations

from flows.html_report.marks import Axis, Dot, dots
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    by_evaluation,
    full_name,
    named_rows,
    number,
    panel_name,
    some,
)
from flows.report.figures import counted, ed_recall_figure, figure, is_number
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row
from tasks.judging.gate_thresholds import ED_RECALL

MOST_MODELS = 6
LEAST = 10  # emergencies: of fewer, an interval spans nearly everything
READING = (
    f"ED recall of the primary rule in each subgroup of at least {LEAST} emergencies, with 95 % "
    "intervals, for {models}; dashed: the gate; the line on top is the whole set. Many subgroups "
    "are looked at: some are far off by chance."
)
COMMANDS = (
    "triage sql subgroup_metrics --param metric=ed_recall",
    "triage sql subgroup_gaps",
)
MISSING = (
    "No judged emergency of this study names a subgroup. Set `subgroup_columns` to read them from "
    "your cases; this makes a new dataset and retrains its models."
)


Groups = dict[str, list[Row]]


def subgroups(study: ReportedStudy) -> Section:
    """A panel for each of the first models."""
    rows = named_rows("subgroup_metrics", study.ids, metric="ed_recall")
    groups = by_evaluation([row for row in rows if is_number(row.value) and row.n >= LEAST])
    grouped_rows = [row for row in study.board if row.evaluation_id in groups]
    trained_rows = [row for row in grouped_rows if row.recipe_kind != "baseline"]
    heading = "Subgroups"
    if not grouped_rows:
        return Section("subgroups", heading, missing=MISSING)

    shown_rows = (trained_rows or grouped_rows)[:MOST_MODELS]
    panels = [_panel(evaluation, groups[evaluation.evaluation_id]) for evaluation in shown_rows]
    tables = [_table(shown_rows, groups)]
    findings = [
        _finding(evaluation, groups[evaluation.evaluation_id]) for evaluation in shown_rows[:1]
    ]
    reading = READING.format(models=_models(trained_rows or grouped_rows))

    return Section("subgroups", heading, reading, findings, panels, tables, commands=COMMANDS)


def _models(rows: list[EvaluationRow]) -> str:
    """How many of `rows`, all of one kind, have a panel."""
    kind = "baseline" if rows[0].recipe_kind == "baseline" else "trained model"
    if len(rows) > MOST_MODELS:
        return f"the first {MOST_MODELS} {kind}s of the leaderboard"
    return counted(len(rows), kind)


def _name(row: Row) -> str:
    return f"{row.field}: {row.subgroup}"


def _recall(row: Row) -> str:
    return figure(row.value, row.low, row.high)


def _panel(evaluation: EvaluationRow, rows: list[Row]) -> Panel:
    name = full_name(evaluation)
    whole = Dot(
        "all",
        "",
        evaluation.ed_recall,
        number(evaluation.ed_recall_low),
        number(evaluation.ed_recall_high),
    )
    marks = [
        whole,
        *(Dot(_name(row), "", row.value, number(row.low), number(row.high)) for row in rows),
    ]
    drawing = dots(marks, Axis("ED recall", (0, 1)), [""], [ED_RECALL])
    ranked_rows = sorted(rows, key=lambda row: row.value or 0)
    texts = [f"{_name(row)} {_recall(row)}" for row in ranked_rows]
    alt = f"ED recall of {name} by subgroup, lowest first: {some(texts)}."

    return Panel(panel_name("subgroups", name), name, alt, drawing)


def _finding(evaluation: EvaluationRow, rows: list[Row]) -> str:
    ranked_rows = sorted(rows, key=lambda row: row.value or 0)
    low = ranked_rows[0]
    high = ranked_rows[-1]
    return (
        f"{full_name(evaluation)}: lowest in {_name(low)} ({low.n} emergencies), {_recall(low)}; "
        f"highest in {_name(high)} ({high.n}), {_recall(high)}; over all "
        f"{ed_recall_figure(evaluation.ed_recall, evaluation.ed_recall_low, evaluation.ed_recall_high)}."
    )


def _table(shown_rows: list[EvaluationRow], groups: Groups) -> ReportTable:
    records = [
        {
            "experiment": full_name(evaluation),
            "subgroup": _name(row),
            "emergencies": str(row.n),
            "ED recall": _recall(row),
        }
        for evaluation in shown_rows
        for row in groups[evaluation.evaluation_id]
    ]
    return ReportTable.of("ED recall by subgroup", records)
