"""Rows of the metrics of probabilities and of subgroups: tables
metric, subgroup_metric, net_benefit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from tasks.judging.inputs import label_codes
from tasks.judging.judged_scores import JudgedScores, Row, Rows
from tasks.judging.metrics import Metric
from tasks.judging.net_benefit import DecisionCurve, net_benefits
from tasks.judging.point_metrics import Ints
from tasks.judging.score_metrics import ClassScores, score_metrics
from tasks.judging.subgroups import MIN_CASES, Subgroup, subgroup_metrics, subgroup_rows
from tasks.judging.unit_draws import UnitDraws
from tasks.spec import LABELS


@dataclass(frozen=True)
class ScoreRows:
    """Landing rows by table; those of `metric` are listed under argmax."""

    metric: Rows
    subgroup_metric: Rows
    net_benefit: Rows


def score_rows(judged: JudgedScores) -> ScoreRows:
    """The rows of one evaluation: of each class on the whole set, of p(ED) in each subgroup."""
    evaluation_id = judged.evaluation.evaluation_id
    truth = label_codes(judged.labels)
    subgroups = subgroup_rows([case.subgroup or {} for case in judged.cases])
    everyone = np.arange(len(truth))
    whole = [ClassScores(label, judged.p, truth, everyone) for label in LABELS]
    parts = [ClassScores("ED", judged.p, truth, rows, MIN_CASES) for rows in subgroups.values()]

    features = np.column_stack([judged.p, np.eye(len(LABELS))[truth], *_marks(subgroups, truth)])
    draws = UnitDraws.of(features, judged.groups, judged.evaluation.seed)
    curve = DecisionCurve.of(judged.p[:, 0], (truth == 0).astype(np.int64), draws)
    metrics, (resampled_curve,) = score_metrics([*whole, *parts], draws, [curve])

    of_subgroups = dict(zip(subgroups, metrics[len(whole) :], strict=True))
    return ScoreRows(
        [
            metric_row(evaluation_id, "argmax", metric)
            for of_class in metrics[: len(whole)]
            for metric in of_class
        ],
        _subgroup_rows(judged, subgroups, of_subgroups),
        [
            {"evaluation_id": evaluation_id, **asdict(row)}
            for row in net_benefits(curve, resampled_curve, draws)
        ],
    )


def _marks(subgroups: dict[Subgroup, Ints], truth: Ints) -> list[Ints]:
    """A column for each subgroup: whether the case is of it."""
    cases = np.arange(len(truth))
    return [np.isin(cases, rows).astype(np.int64) for rows in subgroups.values()]


def metric_row(evaluation_id: str, rule: str, metric: Metric) -> Row:
    """A row of the table metric."""
    columns = asdict(metric)
    name = columns.pop("name")
    return {"evaluation_id": evaluation_id, "rule": rule, "metric": name, **columns}


def _subgroup_rows(
    judged: JudgedScores, subgroups: dict[Subgroup, Ints], of_scores: dict[Subgroup, list[Metric]]
) -> Rows:
    """In each subgroup: every metric of the primary rule, and those of p(ED)."""
    decisions = judged.primary.labels
    of_rule = {}
    if decisions is not None:
        of_rule = subgroup_metrics(
            subgroups,
            judged.labels,
            decisions,
            judged.groups,
            judged.evaluation.scoring.cost_matrix,
            judged.evaluation.seed,
        )

    return [
        _subgroup_row(judged.evaluation.evaluation_id, subgroup, metric)
        for subgroup, metrics in of_scores.items()
        for metric in [*of_rule.get(subgroup, []), *metrics]
    ]


def _subgroup_row(evaluation_id: str, subgroup: Subgroup, metric: Metric) -> Row:
    field, value = subgroup
    return {
        "evaluation_id": evaluation_id,
        "field": field,
        "subgroup": value,
        "metric": metric.name,
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
        "method": metric.method,
        "n": metric.n,
        "note": metric.note,
    }
