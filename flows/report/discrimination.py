"""How well p(ED) ranks cases, how it is calibrated and what a threshold on it is worth, as a table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.report.calibration import metric_cell, with_probabilities
from flows.report.figures import figure, stacked
from flows.report.names import listed_name
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, metrics_named, typed_rows

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


@dataclass(frozen=True)
class NetBenefitRow:
    """A row of `net_benefit`: sending to ED from a threshold on, against ED for all."""

    evaluation_id: str
    threshold: float
    net_benefit: float
    low: float | None
    high: float | None
    over_always_ed: float
    over_always_ed_low: float | None
    over_always_ed_high: float | None


def discrimination(board: Collection[EvaluationRow]) -> ReportTable:
    """Per experiment with likelihoods or learned scores: ranking, recalibration and net benefit."""
    metrics = metrics_named(METRICS)
    benefits = {
        (row.evaluation_id, row.threshold): row for row in typed_rows(NetBenefitRow, "net_benefit")
    }

    rows = []
    for row in with_probabilities(board):
        record = {title: metric_cell(metrics, row, name) for name, title in METRICS.items()}
        for threshold in THRESHOLDS:
            benefit = benefits.get((row.evaluation_id, threshold))
            record[f"net benefit at {threshold:g}"] = _benefit(benefit)
        rows.append(stacked({"experiment": listed_name(row)}, [record]))

    return ReportTable.of(DISCRIMINATION, rows, '"FROM metric"')


def _benefit(row: NetBenefitRow | None) -> str:
    if row is None:
        return "n/a: not measured"
    over = row.over_always_ed, row.over_always_ed_low, row.over_always_ed_high
    return f"{figure(row.net_benefit, row.low, row.high)}\n{figure(*over, sign=True)}"
