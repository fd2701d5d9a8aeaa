"""From the scores of an evaluation to the rows of its tables in the warehouse.

Here: evaluation, prediction, metric, decision_rule and gate; the metrics of probabilities and of
subgroups are in `tasks/judging/score_rows.py`, the tables about uncertainty in
`tasks/judging/uncertainty_rows.py`. The rules were chosen on
`calibration` and stored with the scores; they are applied to the judged set once. No patient text
passes through here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.corpus.manifest import DatasetManifest
from tasks.judging.calibration import calibration_table
from tasks.judging.choose_rules import ChosenRule, Decisions, RuleRecord
from tasks.judging.decision_rules import Threshold, VectorScaling
from tasks.judging.gates import Gate, Verdict, judge_gates
from tasks.judging.judged_scores import Evaluation, JudgedScores, Row, Rows
from tasks.judging.metrics import Metric, joined_notes, metric_table
from tasks.judging.point_metrics import METRICS
from tasks.judging.score_rows import metric_row, score_rows
from tasks.judging.scores_folder import EvaluationScores, ScoredCase, read_scores
from tasks.judging.uncertainty_rows import (
    DropoutSummary,
    conformal_rows,
    mc_dropout_rows,
    probability_columns,
    reliability_table_rows,
    review_flag_rows,
    summarise_dropout,
)
from tasks.judging.written_answers import ParsedAnswer, generation_metrics
from tasks.spec import LABELS, SCORING_VERSION, ExperimentSpec, evaluation_id

LARGEST_EXPONENT = 700.0  # exp of more is no finite number


def evaluation_rows(
    spec: ExperimentSpec,
    training_id: str,
    scores: Path,
    dataset: DatasetManifest,
    name: str = "test",
    is_moved: bool = False,
) -> dict[str, Rows]:
    """All landing rows of one evaluation, by table.

    `scores`: the sealed scores folder, which has the name of its id; `name`: of the
    judged set, one of `dataset`. Rules are chosen on the training dataset's
    calibration set, whichever set is judged. `is_moved`: as in Evaluation.
    """
    entry = dataset.sets[name]
    evaluation = Evaluation(
        evaluation_id=evaluation_id(scores.name),
        scores_id=scores.name,
        training_id=training_id,
        set_digest=entry.digest,
        has_groups=entry.has_groups,
        rule=spec.recipe.rule,
        scoring=spec.scoring,
        seed=spec.seed,
        evaluation_set=name,
        is_moved=is_moved,
    )
    return judged_rows(evaluation, read_scores(scores))


def judged_rows(evaluation: Evaluation, scores: EvaluationScores) -> dict[str, Rows]:
    """All landing rows of one evaluation, a model's or a baseline's, by table."""
    judged = JudgedScores.of(evaluation, scores)
    gates, verdict = _gates(judged)
    dropout = summarise_dropout(judged)
    scored = score_rows(judged)

    return {
        "evaluation": [_evaluation_row(judged, verdict, dropout)],
        "prediction": _prediction_rows(judged),
        "metric": [*_rule_metric_rows(judged), *_further_metric_rows(judged), *scored.metric],
        "decision_rule": rule_rows(
            evaluation.evaluation_id, scores.rules, scores.manifest.test_scored_at
        ),
        "gate": [_gate_row(evaluation.evaluation_id, gate) for gate in gates],
        "mc_dropout": mc_dropout_rows(judged, dropout),
        "reliability": reliability_table_rows(judged),
        "net_benefit": scored.net_benefit,
        "conformal": conformal_rows(judged),
        "subgroup_metric": scored.subgroup_metric,
        "review_flag": review_flag_rows(judged, dropout),
    }


def _evaluation_row(judged: JudgedScores, verdict: Verdict, dropout: DropoutSummary | None) -> Row:
    evaluation = judged.evaluation
    manifest = judged.scores.manifest
    threshold = judged.primary.threshold
    costs = evaluation.scoring.cost_matrix
    hits = [a == b for a, b in zip(judged.argmax, judged.labels, strict=True)]
    created = datetime.fromisoformat(manifest.created).astimezone(UTC).replace(tzinfo=None)

    return {
        "evaluation_id": evaluation.evaluation_id,
        "training_id": evaluation.training_id,
        "scores_id": evaluation.scores_id,
        "evaluation_set": evaluation.evaluation_set,
        "set_digest": evaluation.set_digest,
        "cases": len(judged.cases),
        "calibration_cases": len(judged.scores.calibration),
        "has_groups": evaluation.has_groups,
        "accuracy": float(np.mean(hits)),
        "primary_rule": evaluation.rule,
        "threshold": threshold.value if threshold else None,
        "verdict": verdict,
        "ed_prevalence": Counter(judged.labels)["ED"] / len(judged.labels),
        "score_seconds": manifest.score_seconds,
        "scoring_version": SCORING_VERSION,
        "created_at": created,
        "shortened_cases": manifest.shortened_cases,
        "cost_matrix": json.dumps(costs) if costs else None,
        "review_entropy": evaluation.scoring.review_entropy,
        **_likelihood_columns(judged.cases),
        **_dropout_columns(judged, dropout),
    }


def _likelihood_columns(cases: list[ScoredCase]) -> Row:
    """Mean negative log-likelihood of a completion token, and its exponential.

    None for a baseline that is no language model.
    """
    losses = [case.loss for case in cases]
    if any(loss is None for loss in losses):
        return {"loss": None, "perplexity": None}
    loss = sum(loss for loss in losses if loss is not None) / sum(case.tokens for case in cases)
    return {"loss": loss, "perplexity": math.exp(min(loss, LARGEST_EXPONENT))}


def _dropout_columns(judged: JudgedScores, dropout: DropoutSummary | None) -> Row:
    manifest = judged.scores.manifest
    return {
        "mc_status": "available" if dropout else "not available",
        "mc_reason": None if dropout else manifest.why_no_passes,
        "mc_passes": dropout.passes if dropout else None,
        "mc_cases": len(dropout.cases) if dropout else None,
        "mc_seconds": manifest.mc_seconds if dropout else None,
    }


def _prediction_rows(judged: JudgedScores) -> Rows:
    """One row per case of the judged set: its probabilities, and what each rule decides."""
    rows = []
    for i, case in enumerate(judged.cases):
        decisions = {
            name: rule.labels[i] if rule.labels else None for name, rule in judged.decisions.items()
        }
        rows.append(
            {
                "evaluation_id": judged.evaluation.evaluation_id,
                "case_id": case.case_id,
                "case_digest": case.case_digest,
                "case_group": case.group,
                "label": case.label,
                **probability_columns(case.probabilities),
                "nll": None if case.loss is None else case.loss / case.tokens,
                "decision": decisions[judged.evaluation.rule],
                **decisions,
            }
        )

    return rows


def _rule_metric_rows(judged: JudgedScores) -> Rows:
    """Metric rows of the decisions of each rule."""
    evaluation_id = judged.evaluation.evaluation_id
    return [
        metric_row(evaluation_id, rule.rule, metric)
        for rule in judged.decisions.values()
        for metric in _rule_metrics(judged, rule)
    ]


def _rule_metrics(judged: JudgedScores, rule: Decisions) -> list[Metric]:
    if rule.labels is None:
        return [Metric.without_value(name, len(judged.labels), rule.note) for name in METRICS]
    costs = judged.evaluation.scoring.cost_matrix
    table = metric_table(judged.labels, rule.labels, judged.groups, costs, judged.evaluation.seed)
    return [replace(metric, note=joined_notes(metric.note, rule.note)) for metric in table]


def _further_metric_rows(judged: JudgedScores) -> Rows:
    """Metric rows of calibration and of written answers, listed under argmax."""
    seed = judged.evaluation.seed
    metrics = calibration_table(judged.labels, judged.p, judged.groups, seed)
    answers = judged.scores.answers
    if answers is not None:
        rows = judged.rows_of([answer.case_id for answer in answers])
        metrics += generation_metrics(
            [ParsedAnswer(answer.exact, answer.label) for answer in answers],
            [judged.argmax[row] for row in rows],
            len(judged.cases),
            judged.groups_of(rows),
            seed,
        )

    return [metric_row(judged.evaluation.evaluation_id, "argmax", metric) for metric in metrics]


def rule_rows(evaluation_id: str, record: RuleRecord, scored_at: str) -> Rows:
    """Rows of decision_rule, one per rule. `scored_at`: when scoring the judged set began."""
    return [
        {
            "evaluation_id": evaluation_id,
            "rule": rule.rule,
            **_parameter_columns(rule),
            "target": record.target if rule.rule == "target_recall" else None,
            "calibration_digest": record.calibration_digest,
            "chosen_at": record.chosen_at,
            "test_scored_at": scored_at,
            "note": rule.note,
        }
        for rule in record.rules.values()
    ]


def _parameter_columns(rule: ChosenRule) -> Row:
    return {**_threshold_columns(rule.threshold), **_scaling_columns(rule.scaling)}


def _threshold_columns(threshold: Threshold | None) -> Row:
    if threshold is None:
        return dict.fromkeys(("threshold", "allowed_misses", "misses", "n_ed", "bound"))
    return {
        "threshold": threshold.value,
        "allowed_misses": threshold.allowed_misses,
        "misses": threshold.misses,
        "n_ed": threshold.n_ed,
        "bound": threshold.bound,
    }


def _scaling_columns(scaling: VectorScaling | None) -> Row:
    bias_columns = [f"bias_{label.lower()}" for label in LABELS]
    if scaling is None:
        return dict.fromkeys(("temperature", *bias_columns, "at_bound"))
    return {
        "temperature": scaling.temperature,
        **dict(zip(bias_columns, scaling.biases, strict=True)),
        "at_bound": scaling.at_bound,
    }


def _gates(judged: JudgedScores) -> tuple[list[Gate], Verdict]:
    """Gates of the primary rule; a rule that is not available passes none of them."""
    primary = judged.primary
    if primary.labels is not None:
        return judge_gates(judged.labels, primary.labels, judged.groups, judged.evaluation.seed)

    # Judging the truth against itself gives each gate's name, threshold and number of cases.
    gates, _ = judge_gates(judged.labels, judged.labels, judged.groups, judged.evaluation.seed)
    return [_without_result(gate, primary.note) for gate in gates], "unsafe"


def _without_result(gate: Gate, note: str | None) -> Gate:
    return replace(
        gate,
        state="NOT AVAILABLE",
        value=None,
        bound=None,
        successes=None,
        note=note,
        exact_low=None,
        exact_high=None,
        clustered_low=None,
        clustered_high=None,
    )


def _gate_row(evaluation_id: str, gate: Gate) -> Row:
    columns = asdict(gate)
    return {"evaluation_id": evaluation_id, "gate": columns.pop("name"), **columns}
