"""Trained models beside what needs no training: constant answers, a bag of words, untuned models."""

from __future__ import annotations

from flows.html_report.marks import Axis, Dot, dots
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    and_others,
    full_name,
    labels_of,
    named_rows,
    number,
    panel_name,
    some,
)
from flows.report.figures import figure
from flows.report.leaderboard import leaderboard
from flows.report.typed_rows import EvaluationRow

TRAINED = "trained"
BASELINE = "baseline"
FIGURES = {"accuracy": "accuracy", "ed_recall": "ED recall", "over_triage": "over-triage"}
READING = (
    "Accuracy of the most probable label, and ED recall and over-triage of each model's own "
    "decision rule, with 95 % intervals, in the order of the leaderboard. A constant answer needs "
    "no model; a model that does not beat it has learned nothing."
)


def baselines(study: ReportedStudy) -> Section:
    """The leaderboard as forest plots."""
    panels = [_panel(study.board, metric, name) for metric, name in FIGURES.items()]
    table = leaderboard(study.board)
    return Section("baselines", "Models and baselines", READING, _findings(study), panels, [table])


def _panel(board: list[EvaluationRow], metric: str, name: str) -> Panel:
    measured_rows = [row for row in board if getattr(row, metric) is not None]
    labels = labels_of(measured_rows)
    marks = [
        Dot(
            labels[row.evaluation_id],
            _kind(row),
            *(number(value) for value in _values(row, metric)),
        )
        for row in measured_rows
    ]
    axis = Axis.of_shares(name, [end for row in marks for end in (row.low, row.value, row.high)])
    names = [kind for kind in (TRAINED, BASELINE) if any(row.series == kind for row in marks)]
    drawing = dots(marks, axis, names, overlaid=True)
    texts = [f"{full_name(row)} {figure(*_values(row, metric))}" for row in measured_rows]
    alt = f"{name[0].upper()}{name[1:]} of every model and baseline: {some(texts)}."

    return Panel(panel_name("baselines", metric), name, alt, drawing)


def _kind(row: EvaluationRow) -> str:
    return BASELINE if row.recipe_kind == "baseline" else TRAINED


def _values(row: EvaluationRow, metric: str) -> tuple[float | None, float | None, float | None]:
    return getattr(row, metric), getattr(row, f"{metric}_low"), getattr(row, f"{metric}_high")


def _findings(study: ReportedStudy) -> list[str]:
    trained_rows = [row for row in study.board if row.is_trained]
    if not trained_rows:
        return ["This study has no trained model."]

    trained_ids = {row.evaluation_id for row in trained_rows}
    rows = [
        row for row in named_rows("beats_constant", study.ids) if row.evaluation_id in trained_ids
    ]
    beating = sum(row.against_constant == "beats it" for row in rows)
    best_row = max(trained_rows, key=lambda row: row.accuracy or 0)

    sentences = [
        "Highest accuracy of a trained model: "
        f"{full_name(best_row)}{and_others([row.accuracy for row in trained_rows], best_row.accuracy)}, "
        f"{figure(best_row.accuracy, best_row.accuracy_low, best_row.accuracy_high)}."
    ]
    if rows:
        sentences.append(
            f"{beating} of {len(rows)} trained models beat the best constant answer in accuracy, "
            f"always-{rows[0].constant_answer} ({figure(rows[0].constant_accuracy)}), with the "
            "whole interval."
        )

    return sentences
