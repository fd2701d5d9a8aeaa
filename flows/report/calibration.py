"""Probabilities: calibration, conformal sets, AUROC and net benefit."""

from __future__ import annotations

from flows.report.figures import (
    CONSTANT_ANSWERS,
    figure,
    is_number,
    listed_name,
    metric_cell,
    percent,
    why_not,
)
from flows.report.table import ReportTable
from flows.report.typed_rows import Board, EvaluationRow, Row, metrics_named, rows_of

CALIBRATION = (
    "Can the probabilities be trusted? Likelihood and calibration on the test set; brackets: 95 %"
)
DISCRIMINATION = (
    "What is p(ED) worth? Slope 1 and intercept 0: calibrated; slope below 1: too sure; net "
    "benefit of ED from p(ED) 0.02 or 0.1 on (nobody: 0), below it that over always-ED; brackets: "
    "95 %"
)
SETS = (
    "Conformal sets (at most so many emergencies missed on average), "
    "and answers as the model writes them"
)
# The columns of a table that are metrics of the argmax.
PROBABILITY_METRICS = {
    "brier": "Brier",
    "ed_brier": "Brier of ED",
    "ece": "ECE",
    "ed_ece": "ECE of ED",
}
DISCRIMINATION_METRICS = {
    "ed_auroc": "AUROC of ED",
    "ed_average_precision": "average precision",
    "ed_calibration_slope": "slope",
    "ed_calibration_intercept": "intercept",
}
ANSWER_METRICS = {
    "format_compliance": "writes one label",
    "generation_agreement": "writes what it scores",
}
THRESHOLDS = (0.02, 0.1)
NOT_MEASURED = "n/a: not measured"


def calibration(board: Board) -> list[ReportTable]:
    """Per experiment with likelihoods or learned scores: likelihood, Brier scores and ECE; ranking,
    recalibration and net benefit; its conformal sets, and whether it writes one label.
    """
    metrics = metrics_named([*PROBABILITY_METRICS, *DISCRIMINATION_METRICS, *ANSWER_METRICS])
    benefits = {(row.evaluation_id, row.threshold): row for row in rows_of("net_benefit")}
    conformal = {row.evaluation_id: row for row in rows_of("conformal")}

    trust, worth, sets = [], [], []
    for row in with_probabilities(board):
        id = row.evaluation_id
        head = {"experiment": listed_name(row)}
        likelihood = {"NLL": figure(row.test_loss), "perplexity": figure(row.perplexity, digits=2)}
        trust.append(head | likelihood | _cells(metrics, id, PROBABILITY_METRICS))
        net_benefits = {
            f"net benefit at {threshold:g}": _benefit(benefits.get((id, threshold)))
            for threshold in THRESHOLDS
        }
        worth.append(head | _cells(metrics, id, DISCRIMINATION_METRICS) | net_benefits)
        answers = _cells(metrics, id, ANSWER_METRICS, counted=True)
        sets.append(head | _conformal(conformal.get(id)) | answers)

    return [
        ReportTable.of(CALIBRATION, trust, '"FROM metric"'),
        ReportTable.of(DISCRIMINATION, worth, '"FROM metric"'),
        ReportTable.of(SETS, sets, "conformal_sets"),
    ]


def with_probabilities(board: Board) -> list[EvaluationRow]:
    """All but the constant answers, which have no scores."""
    return [row for row in board if row.recipe not in CONSTANT_ANSWERS]


def _cells(
    metrics: dict[tuple[str, str, str], Row],
    evaluation_id: str,
    titles: dict[str, str],
    counted: bool = False,
) -> dict[str, str]:
    """Metrics of the argmax with their intervals, or why there are none; `counted`: and of how many
    cases.
    """
    cells = {}
    for name, title in titles.items():
        metric = metrics.get((evaluation_id, "argmax", name))
        cells[title] = metric_cell(metric, missing=NOT_MEASURED)
        if counted and metric is not None and is_number(metric.value):
            cells[title] += f" of {metric.n} cases"
    return cells


def _benefit(row: Row | None) -> str:
    if row is None:
        return NOT_MEASURED
    over = row.over_always_ed, row.over_always_ed_low, row.over_always_ed_high
    return f"{figure(row.net_benefit, row.low, row.high)}\n{figure(*over, sign=True)}"


def _conformal(row: Row | None) -> dict[str, str]:
    if row is None:
        return dict.fromkeys(("ED missed", "abstains", "mind"), "n/a")

    missed = why_not(row.note)
    if row.ed_missed is not None:
        share = figure(row.ed_miss_rate, row.miss_low, row.miss_high)
        missed = f"{row.ed_missed} of {row.ed_cases}: {share}"

    return {
        "ED missed": f"{missed}\n(aim: {percent(row.miss_rate)} at most)",
        "abstains": figure(row.abstain_rate, row.abstain_low, row.abstain_high),
        "mind": row.note or "",
    }
