"""From the scores of an evaluation to the rows of its tables in the warehouse.

The rules were chosen on `calibration` and stored with the scores; they are applied to the judged set
once. No patient text passes through here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tasks.corpus.manifest import DatasetManifest
from tasks.judging.decision_rules import EXTERNAL, MOVED, RuleRecord, judge_conformal
from tasks.judging.gates import Gate, Verdict, judge_gates
from tasks.judging.intervals import UnitDraws, interval_columns
from tasks.judging.metrics import (
    MIN_CASES,
    Metric,
    joined_notes,
    metric_table,
    subgroup_metrics,
    subgroup_rows,
)
from tasks.judging.point_metrics import METRICS, Floats, label_codes
from tasks.judging.score_metrics import (
    ClassScores,
    calibration_table,
    decision_curve,
    net_benefits,
    reliability_rows,
    score_metrics,
)
from tasks.judging.scores_folder import (
    Evaluation,
    EvaluationScores,
    JudgedScores,
    Row,
    Rows,
    generation_metrics,
    probability_table,
    read_scores,
)
from tasks.judging.uncertainty import entropy_nats, judge_review, summarise_passes
from tasks.spec import LABELS, SCORING_VERSION, ExperimentSpec, Scoring, evaluation_id

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
    rule = spec.recipe.rule
    evaluation = evaluation_of(
        dataset, name, training_id, scores.name, spec.scoring, rule, spec.seed, is_moved
    )
    return judged_rows(evaluation, read_scores(scores))


def evaluation_of(
    dataset: DatasetManifest,
    name: str,
    training_id: str,
    scores_id: str,
    scoring: Scoring,
    rule: str = "argmax",
    seed: int = 0,
    is_moved: bool = False,
) -> Evaluation:
    """How scores of the set `name` of a dataset are judged. Of a baseline argmax is the primary rule,
    and the other rules stand beside it.
    """
    entry = dataset.sets[name]
    return Evaluation(
        evaluation_id=evaluation_id(scores_id),
        scores_id=scores_id,
        training_id=training_id,
        set_digest=entry.digest,
        has_groups=entry.has_groups,
        rule=rule,
        scoring=scoring,
        seed=seed,
        evaluation_set=name,
        is_moved=is_moved,
    )


def judged_rows(evaluation: Evaluation, scores: EvaluationScores) -> dict[str, Rows]:
    """All landing rows of one evaluation, a model's or a baseline's, by table."""
    judged = JudgedScores.of(evaluation, scores)
    gates, verdict = _gates(judged)
    passes = scores.passes
    dropout: Rows = []
    if passes is not None and passes.case_ids:
        dropout = summarise_passes(passes.p, evaluation.scoring.review_entropy)

    rows = {
        "evaluation": [_evaluation_row(judged, verdict, dropout)],
        "prediction": _prediction_rows(judged),
        "metric": [*_rule_metric_rows(judged), *_further_metric_rows(judged)],
        "decision_rule": rule_rows(scores.rules, scores.manifest.test_scored_at),
        "gate": [{"gate": gate.name, **_but_name(gate)} for gate in gates],
        "mc_dropout": _mc_dropout_rows(judged, dropout),
        "reliability": reliability_rows(judged.labels, judged.p[:, 0]),
        "conformal": [_conformal_row(judged)],
        "review_flag": _review_flag_rows(judged, dropout),
    }
    of_scores = _score_rows(judged)
    rows["metric"] += of_scores.pop("metric")
    return {
        table: [{"evaluation_id": evaluation.evaluation_id, **row} for row in of_table]
        for table, of_table in (rows | of_scores).items()
    }


def _but_name(figure: Metric | Gate) -> Row:
    columns = asdict(figure)
    del columns["name"]
    return columns


def _evaluation_row(judged: JudgedScores, verdict: Verdict, dropout: Rows) -> Row:
    evaluation = judged.evaluation
    manifest = judged.scores.manifest
    threshold = judged.primary.threshold
    costs = evaluation.scoring.cost_matrix
    hits = [a == b for a, b in zip(judged.argmax, judged.labels, strict=True)]
    created = datetime.fromisoformat(manifest.created).astimezone(UTC).replace(tzinfo=None)

    # Mean negative log-likelihood of a completion token; None for a baseline without one.
    losses = [case.loss for case in judged.cases if case.loss is not None]
    loss = None
    if len(losses) == len(judged.cases):
        loss = sum(losses) / sum(case.tokens for case in judged.cases)

    return {
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
        "loss": loss,
        "perplexity": None if loss is None else math.exp(min(loss, LARGEST_EXPONENT)),
        "mc_status": "available" if dropout else "not available",
        "mc_reason": None if dropout else manifest.why_no_passes,
        "mc_passes": dropout[0]["passes"] if dropout else None,
        "mc_cases": len(dropout) if dropout else None,
        "mc_seconds": manifest.mc_seconds if dropout else None,
    }


def _prediction_rows(judged: JudgedScores) -> Rows:
    """One row per case of the judged set: its probabilities, and what each rule decides."""
    rows = []
    for i, case in enumerate(judged.cases):
        decisions = {
            name: labels[i] if labels else None for name, labels in judged.decisions.items()
        }
        rows.append(
            {
                "case_id": case.case_id,
                "case_digest": case.case_digest,
                "case_group": case.group,
                "label": case.label,
                "p_ed": case.p["ED"],
                "p_gp": case.p["GP"],
                "p_home": case.p["HOME"],
                "nll": None if case.loss is None else case.loss / case.tokens,
                "decision": decisions[judged.evaluation.rule],
                **decisions,
            }
        )

    return rows


def _rule_metric_rows(judged: JudgedScores) -> Rows:
    """Metric rows of the decisions of each rule."""
    rows = []
    costs = judged.evaluation.scoring.cost_matrix
    seed = judged.evaluation.seed
    for name, decisions in judged.decisions.items():
        rule_note = judged.scores.rules.rules[name].note
        if decisions is None:
            cases = len(judged.labels)
            metrics = [Metric.without_interval(one, None, cases, rule_note) for one in METRICS]
        else:
            table = metric_table(judged.labels, decisions, judged.groups, costs, seed)
            metrics = [replace(one, note=joined_notes(one.note, rule_note)) for one in table]
        rows += [_metric_row(metric, name) for metric in metrics]

    return rows


def _metric_row(metric: Metric, rule: str = "argmax") -> Row:
    """A row of the table metric; what no rule decides is listed under argmax."""
    return {"rule": rule, "metric": metric.name, **_but_name(metric)}


def _further_metric_rows(judged: JudgedScores) -> Rows:
    """Metric rows of calibration and of written answers."""
    seed = judged.evaluation.seed
    metrics = calibration_table(judged.labels, judged.p, judged.groups, seed)
    answers = judged.scores.answers
    if answers is not None:
        rows = judged.rows_of([answer.case_id for answer in answers])
        metrics += generation_metrics(
            answers,
            [judged.argmax[row] for row in rows],
            len(judged.cases),
            judged.groups_of(rows),
            seed,
        )

    return [_metric_row(metric) for metric in metrics]


def rule_rows(record: RuleRecord, scored_at: str) -> Rows:
    """Rows of decision_rule, one per rule. `scored_at`: when scoring the judged set began."""
    rows = []
    for rule in record.rules.values():
        threshold = rule.threshold
        scaling = rule.scaling
        rows.append(
            {
                "rule": rule.rule,
                "threshold": threshold.value if threshold else None,
                "allowed_misses": threshold.allowed_misses if threshold else None,
                "misses": threshold.misses if threshold else None,
                "n_ed": threshold.n_ed if threshold else None,
                "bound": threshold.bound if threshold else None,
                "temperature": scaling.temperature if scaling else None,
                "bias_ed": scaling.biases[0] if scaling else None,
                "bias_gp": scaling.biases[1] if scaling else None,
                "bias_home": scaling.biases[2] if scaling else None,
                "at_bound": scaling.at_bound if scaling else None,
                "target": record.target if rule.rule == "target_recall" else None,
                "calibration_digest": record.calibration_digest,
                "chosen_at": record.chosen_at,
                "test_scored_at": scored_at,
                "note": rule.note,
            }
        )

    return rows


def _gates(judged: JudgedScores) -> tuple[list[Gate], Verdict]:
    """Gates of the primary rule; a rule that is not available passes none of them."""
    decisions = judged.primary_decisions
    # Judging the truth against itself gives each gate's name, threshold and number of cases.
    gates, verdict = judge_gates(
        judged.labels, decisions or judged.labels, judged.groups, judged.evaluation.seed
    )
    if decisions is not None:
        return gates, verdict

    figures = ("value", "bound", "successes", *interval_columns(None, None))
    without: dict[str, Any] = dict.fromkeys(figures)
    note = judged.primary.note
    return [replace(gate, state="NOT AVAILABLE", note=note, **without) for gate in gates], "unsafe"


def _score_rows(judged: JudgedScores) -> dict[str, Rows]:
    """Rows of metric (of each class on the whole set), net_benefit and subgroup_metric (every metric
    of the primary rule, and those of p(ED)); all share one set of resamples.
    """
    truth = label_codes(judged.labels)
    subgroups = subgroup_rows([case.subgroup or {} for case in judged.cases])
    everyone = np.arange(len(truth))
    whole = [ClassScores(label, judged.p, truth, everyone) for label in LABELS]
    parts = [ClassScores("ED", judged.p, truth, rows, MIN_CASES) for rows in subgroups.values()]

    # A column for each subgroup: whether the case is of it.
    marks = [np.isin(everyone, rows).astype(np.int64) for rows in subgroups.values()]
    features = np.column_stack([judged.p, np.eye(len(LABELS))[truth], *marks])
    draws = UnitDraws.of(features, judged.groups, judged.evaluation.seed)
    curve = decision_curve(judged.p[:, 0], (truth == 0).astype(np.int64), draws)
    metrics, (resampled_curve,) = score_metrics([*whole, *parts], draws, [curve])

    decisions = judged.primary_decisions
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

    of_subgroups: Rows = []
    for subgroup, of_scores in zip(subgroups, metrics[len(whole) :], strict=True):
        field, value = subgroup
        for metric in [*of_rule.get(subgroup, []), *of_scores]:
            columns = {
                name: getattr(metric, name)
                for name in ("value", "low", "high", "method", "n", "note")
            }
            of_subgroups.append(
                {"field": field, "subgroup": value, "metric": metric.name, **columns}
            )

    return {
        "metric": [
            _metric_row(metric) for of_class in metrics[: len(whole)] for metric in of_class
        ],
        "net_benefit": net_benefits(curve, resampled_curve, draws),
        "subgroup_metric": of_subgroups,
    }


def _mc_dropout_rows(judged: JudgedScores, dropout: Rows) -> Rows:
    """One row per case that went through dropout; its votes by argmax and by the primary rule."""
    passes = judged.scores.passes
    if passes is None or not dropout:
        return []

    votes = primary_votes(judged, passes.p)
    return [
        {"case_id": case_id, **case, **vote}
        for case_id, case, vote in zip(passes.case_ids, dropout, votes, strict=True)
    ]


def primary_votes(judged: JudgedScores, p: Floats) -> Rows:
    """The primary rule's votes in each case's passes; ties go to the more urgent label. None without
    such a rule.
    """
    names = ("decision_majority", "decision_confidence", "decision_entropy_nats")
    passes, cases = p.shape[:2]
    costs = judged.evaluation.scoring.cost_matrix
    flat = judged.primary.decide(p.reshape(-1, len(LABELS)), costs)
    if flat is None:
        return [dict.fromkeys(names)] * cases

    decisions = np.array(flat).reshape(passes, cases)
    shares = np.stack([(decisions == label).mean(axis=0) for label in LABELS], axis=1)
    rows = []
    for share in shares:
        majority = LABELS[int(share.argmax())]
        values = (majority, float(share.max()), float(entropy_nats(share)))
        rows.append(dict(zip(names, values, strict=True)))

    return rows


def _review_flag_rows(judged: JudgedScores, dropout: Rows) -> Rows:
    """One row per score that can flag cases for review, on the cases that went through dropout."""
    decisions = judged.primary_decisions
    passes = judged.scores.passes
    if passes is None or not dropout or decisions is None:
        return []

    rows = judged.rows_of(passes.case_ids)
    flags = judge_review(
        [case["review"] for case in dropout],
        [case["entropy_nats"] for case in dropout],
        judged.p[rows],
        [judged.labels[row] for row in rows],
        [decisions[row] for row in rows],
        judged.groups_of(rows),
        judged.evaluation.seed,
    )
    return [{"cases": len(rows), **flag} for flag in flags]


def _conformal_row(judged: JudgedScores) -> Row:
    """The conformal sets of the judged set, and why they have no guarantee on its cases."""
    evaluation = judged.evaluation
    calibration = judged.scores.calibration
    return judge_conformal(
        (probability_table(calibration), [case.label for case in calibration]),
        (judged.p, judged.labels),
        evaluation.scoring.conformal_miss_rate,
        judged.groups,
        evaluation.seed,
        caveat=joined_notes(
            MOVED if evaluation.is_moved else None,
            EXTERNAL if evaluation.evaluation_set != "test" else None,
        ),
    )
