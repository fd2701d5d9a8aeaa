"""Calibration and conformal sets of every evaluation, as tables."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.report.figures import figure, is_number, percent, stacked, why_not
from flows.report.names import CONSTANT_ANSWERS, listed_name
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, MetricRow, metrics_named, typed_rows

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
Metrics = dict[tuple[str, str, str], MetricRow]


@dataclass(frozen=True)
class ConformalRow:
    """A row of `conformal`: the sets of one evaluation, built for an ED miss rate of `miss_rate`."""

    evaluation_id: str
    miss_rate: float
    ed_cases: int
    ed_missed: int | None
    ed_miss_rate: float | None
    miss_low: float | None
    miss_high: float | None
    abstain_rate: float | None
    abstain_low: float | None
    abstain_high: float | None
    note: str | None


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
    conformal = {row.evaluation_id: row for row in typed_rows(ConformalRow, "conformal")}

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


def _conformal(row: ConformalRow | None) -> dict[str, str]:
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
