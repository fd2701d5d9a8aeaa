"""Reliability near zero: where a model says "hardly an emergency", how many are emergencies."""

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
from flows.report.calibration import with_probabilities
from flows.report.figures import figure
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row

BELOW = 0.1  # the highest bin that is drawn
TOO_SURE = "too sure that it is none"
READING = (
    f"Cases in bins of p(ED) up to {BELOW:g}: the mean p(ED) of a bin, and the share of its cases "
    "that are emergencies, with its 95 % interval. On the dashed line both agree; an interval "
    "wholly above it means that the model is too sure that a case is none. The intervals treat "
    "cases as independent; the likeness of cases of one condition would widen them."
)
MISSING = (
    f"No evaluation of this study has a case with p(ED) up to {BELOW:g} in a bin of its own. "
    "A sweep with a model that tells cases apart gives some."
)


Bins = dict[str, list[Row]]


def reliability(study: ReportedStudy) -> Section:
    """A panel for what differs in precision alone."""
    rows = named_rows("calibration_near_zero", study.ids, below=str(BELOW))
    bins = by_evaluation(rows)
    judged_rows = [row for row in with_probabilities(study.board) if row.evaluation_id in bins]
    heading = "Reliability near zero"
    if not judged_rows:
        return Section("reliability", heading, missing=MISSING)

    panels = [_panel(study, name, group, bins) for name, group in panels_of(judged_rows).items()]
    table = _table(judged_rows, bins)
    return Section("reliability", heading, READING, _findings(judged_rows, bins), panels, [table])


def _text(row: Row) -> str:
    share = figure(row.ed_share, row.share_low, row.share_high)
    return f"of {row.n} cases with mean p(ED) {figure(row.mean_p_ed)}, {share} are emergencies"


def _panel(study: ReportedStudy, name: str, group: list[EvaluationRow], bins: Bins) -> Panel:
    marks = [
        BandPoint(
            series(evaluation),
            row.mean_p_ed,
            row.ed_share,
            number(row.share_low),
            number(row.share_high),
        )
        for evaluation in group
        for row in bins[evaluation.evaluation_id]
    ]
    precisions = {series(evaluation) for evaluation in group}
    names = [precision for precision in study.precisions if precision in precisions]
    highest = max(row.y or 0 for row in marks)
    x = Axis("mean p(ED) of a bin", (0, BELOW))
    y = Axis("share of emergencies", (0, min(1, max(3 * BELOW, 2 * highest))))
    drawing = curves(marks, x, y, names, diagonal=True)
    texts = [
        f"{series(evaluation)}: {_text(bins[evaluation.evaluation_id][0])}" for evaluation in group
    ]
    alt = f"Reliability near zero of {name}. {some(texts)}."

    return Panel(panel_name("reliability", name), name, alt, drawing)


def _findings(judged_rows: list[EvaluationRow], bins: Bins) -> list[str]:
    trained_rows = [evaluation for evaluation in judged_rows if evaluation.is_trained]
    if not trained_rows:
        return []

    lowest_bins = {
        full_name(evaluation): bins[evaluation.evaluation_id][0] for evaluation in trained_rows
    }
    sure_bins = {name: row for name, row in lowest_bins.items() if row.calibration == TOO_SURE}
    sentences = [
        f"{len(sure_bins)} of {len(lowest_bins)} trained models are too sure in their lowest bin, "
        "interval included."
    ]
    if sure_bins:
        clearest = max(sure_bins, key=lambda name: sure_bins[name].share_low or 0)
        sentences.append(f"The clearest of them, {clearest}: {_text(sure_bins[clearest])}.")

    return sentences


def _table(judged_rows: list[EvaluationRow], bins: Bins) -> ReportTable:
    records = [
        {
            "experiment": full_name(evaluation),
            "p(ED)": f"{row.low:g} to {row.high:g}",
            "cases": str(row.n),
            "mean p(ED)": figure(row.mean_p_ed, digits=4),
            "share of emergencies": figure(row.ed_share, row.share_low, row.share_high),
            "": row.calibration,
        }
        for evaluation in judged_rows
        for row in bins[evaluation.evaluation_id]
    ]
    return ReportTable.of("Bins of p(ED)", records)
