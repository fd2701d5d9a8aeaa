"""Probabilities: calibration, conformal sets, AUROC and net benefit."""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import (
    CONSTANT_ANSWERS,
    figure,
    is_number,
    listed_name,
    percent,
    stacked,
    why_not,
)
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, metrics_named, rows_of

CALIBRATION = (
    "Can the probabilities be trusted? Likelihood and calibration on the test set; brackets: 95 %"
)
SETS = (
    "Conformal sets (at most so many emergencies missed on average), "
    "and answers as the model writes them"
)
PROBABILITY_METRICS = {
    "brier": "Brier",
    "ed_brier": "Brier of ED",
    "ece": "ECE",
    "ed_ece": "ECE of ED",
}
ANSWER_METRICS = {
    "format_compliance": "writes one label",
    "generation_agreement": "writes what it scores",
}
Metrics = dict[tuple[str, str, str], Row]


def calibration(board: Collection[EvaluationRow]) -> ReportTable:
    """Per experiment with likelihoods or learned scores: likelihood, Brier scores, ECE."""
    metrics = metrics_named(PROBABILITY_METRICS)
    rows = []
    for row in with_probabilities(board):
        record = {"NLL": figure(row.test_loss), "perplexity": figure(row.perplexity, digits=2)}
        for name, title in PROBABILITY_METRICS.items():
            record[title] = metric_cell(metrics, row, name)
        rows.append(stacked({"experiment": listed_name(row)}, [record]))

    return ReportTable.of(CALIBRATION, rows, '"FROM metric"')


def sets_and_answers(board: Collection[EvaluationRow]) -> ReportTable:
    """Per experiment with likelihoods or learned scores: its conformal sets, and whether it writes
    one label.
    """
    metrics = metrics_named(ANSWER_METRICS)
    conformal = {row.evaluation_id: row for row in rows_of("conformal")}

    rows = []
    for row in with_probabilities(board):
        record = _conformal(conformal.get(row.evaluation_id))
        for name, title in ANSWER_METRICS.items():
            record[title] = metric_cell(metrics, row, name, counted=True)
        rows.append(stacked({"experiment": listed_name(row)}, [record]))

    return ReportTable.of(SETS, rows, "conformal_sets")


def with_probabilities(board: Collection[EvaluationRow]) -> list[EvaluationRow]:
    """All but the constant answers, which have no scores."""
    return [row for row in board if row.recipe not in CONSTANT_ANSWERS]


def metric_cell(metrics: Metrics, row: EvaluationRow, name: str, counted: bool = False) -> str:
    """A metric of the argmax with its interval, or why there is none;
    `counted`: and of how many cases.
    """
    metric = metrics.get((row.evaluation_id, "argmax", name))
    if metric is None:
        return "n/a: not measured"
    if not is_number(metric.value):
        return why_not(metric.note)
    cases = f" of {metric.n} cases" if counted else ""
    return figure(metric.value, metric.low, metric.high) + cases


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


DISCRIMINATION = (
    "What is p(ED) worth? Slope 1 and intercept 0: calibrated; slope below 1: too sure; net "
    "benefit of ED from p(ED) 0.02 or 0.1 on (nobody: 0), below it that over always-ED; brackets: "
    "95 %"
)
METRICS = {
    "ed_auroc": "AUROC of ED",
    "ed_average_precision": "average precision",
    "ed_calibration_slope": "slope",
    "ed_calibration_intercept": "intercept",
}
THRESHOLDS = (0.02, 0.1)


def discrimination(board: Collection[EvaluationRow]) -> ReportTable:
    """Per experiment with likelihoods or learned scores: ranking, recalibration and net benefit."""
    metrics = metrics_named(METRICS)
    benefits = {(row.evaluation_id, row.threshold): row for row in rows_of("net_benefit")}

    rows = []
    for row in with_probabilities(board):
        record = {title: metric_cell(metrics, row, name) for name, title in METRICS.items()}
        for threshold in THRESHOLDS:
            benefit = benefits.get((row.evaluation_id, threshold))
            record[f"net benefit at {threshold:g}"] = _benefit(benefit)
        rows.append(stacked({"experiment": listed_name(row)}, [record]))

    return ReportTable.of(DISCRIMINATION, rows, '"FROM metric"')


def _benefit(row: Row | None) -> str:
    if row is None:
        return "n/a: not measured"
    over = row.over_always_ed, row.over_always_ed_low, row.over_always_ed_high
    return f"{figure(row.net_benefit, row.low, row.high)}\n{figure(*over, sign=True)}"
