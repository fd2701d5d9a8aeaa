"""From the scores of an evaluation to the rows of its tables in the warehouse.

The rules were chosen on `calibration` and stored with the scores; they are applied to the judged set
once. No patient text passes through here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.corpus.manifest import DatasetManifest, SetEntry
from tasks.judging.decision_rules import (
    EXTERNAL,
    MOVED,
    ChosenRule,
    RuleRecord,
    judge_conformal,
)
from tasks.judging.gates import Verdict, judge_gates
from tasks.judging.intervals import UnitDraws, interval_columns, joined_notes, metric_row
from tasks.judging.metrics import (
    confusion,
    metric_table,
    share_metric,
    subgroup_metrics,
    subgroup_rows,
)
from tasks.judging.point_metrics import (
    METRICS,
    MIN_UNITS,
    Costs,
    Floats,
    Row,
    Rows,
    label_codes,
    metric_values,
)
from tasks.judging.score_metrics import (
    ClassScores,
    calibration_table,
    decision_curve,
    net_benefits,
    reliability_rows,
    score_metrics,
)
from tasks.judging.scores_folder import (
    NOT_AVAILABLE,
    EvaluationScores,
    ScoredCase,
    WrittenAnswer,
    probability_table,
    read_scores,
)
from tasks.judging.uncertainty import entropy_nats, judge_review, summarise_passes
from tasks.runtime.errors import BadInput
from tasks.spec import (
    LABELS,
    SCORING_VERSION,
    ExperimentSpec,
    Label,
    Scoring,
    evaluation_id,
    training_of,
)

LARGEST_EXPONENT = 700.0  # exp of more is no finite number


@dataclass(frozen=True)
class Evaluation:
    """How the scores with the id `scores_id` of the set `name` of a dataset are judged.

    `rule`: the primary rule, which the gates are about; of a baseline argmax, beside which the other
    rules stand. `is_moved`: the rules, and the scores of the calibration cases, are those of the
    adapter at its own precision, which it keeps at another.
    """

    scores_id: str
    name: str
    entry: SetEntry
    scoring: Scoring
    rule: str = "argmax"
    seed: int = 0
    is_moved: bool = False


def evaluation_rows(
    spec: ExperimentSpec,
    scores: Path,
    dataset: DatasetManifest,
    name: str = "test",
    is_moved: bool = False,
) -> dict[str, Rows]:
    """All landing rows of one evaluation, by table.

    `scores`: the sealed scores folder, which has the name of its id; `name` and `is_moved`: as in
    Evaluation. Rules are chosen on the dataset's calibration set, whichever set is judged.
    """
    rule = spec.recipe.rule
    entry = dataset.sets[name]
    evaluation = Evaluation(scores.name, name, entry, spec.scoring, rule, spec.seed, is_moved)
    return judged_rows(evaluation, read_scores(scores))


class JudgedScores:
    """Scores with the decisions of each rule on the judged set, by the name of the rule; None where
    it is not available.

    `p`: label probabilities, shape (cases, 3); `groups`: None for a set without groups. Raises
    BadInput if a case is in both the calibration and the judged set.
    """

    def __init__(self, evaluation: Evaluation, scores: EvaluationScores) -> None:
        refuse_overlap(scores.calibration, scores.judged, evaluation.name)
        self.evaluation = evaluation
        self.scores = scores
        self.seed = evaluation.seed
        self.costs = evaluation.scoring.cost_matrix
        self.cases = scores.judged
        self.labels: list[Label] = [case.label for case in self.cases]
        self.groups = [case.group for case in self.cases] if evaluation.entry.has_groups else None
        self.p = probability_table(self.cases)

        rules = scores.rules.rules
        self.decisions = {name: rule.decide(self.p, self.costs) for name, rule in rules.items()}
        self.primary = rules[evaluation.rule]
        self.primary_decisions = self.decisions[evaluation.rule]
        self.argmax = self.decisions["argmax"] or []

    def rows_of(self, case_ids: Sequence[str]) -> list[int]:
        """Positions of the given cases in the judged set."""
        position = {case.case_id: row for row, case in enumerate(self.cases)}
        return [position[case_id] for case_id in case_ids]

    def groups_of(self, rows: Sequence[int]) -> list[str | None] | None:
        """The groups of the cases at these positions; None for a set without groups."""
        return self.groups and [self.groups[row] for row in rows]


def refuse_overlap(
    calibration: Sequence[ScoredCase], judged: Sequence[ScoredCase], evaluation_set: str
) -> None:
    """Raise BadInput if a case is in both sets, by id or by the digest of its text: a rule chosen on
    test cases proves nothing.

    The ids of an external set and the dataset's may both count from 1, so they are not compared.
    """
    for identifier, name in {"case id": "case_id", "text digest": "case_digest"}.items():
        of_calibration = {getattr(case, name) for case in calibration}
        shared = sorted(of_calibration & {getattr(case, name) for case in judged})
        if shared and (name == "case_digest" or evaluation_set == "test"):
            raise BadInput(
                f"The calibration set overlaps the test set in {len(shared)} cases "
                f"(same {identifier}, first {shared[0]!r}): "
                "split the cases again so that each is in one set only."
            )


def judged_rows(evaluation: Evaluation, scores: EvaluationScores) -> dict[str, Rows]:
    """All landing rows of one evaluation, a model's or a baseline's, by table."""
    judged = JudgedScores(evaluation, scores)
    gates, verdict = _gates(judged)
    of_dropout = _dropout_rows(judged)
    of_calibration = probability_table(scores.calibration), [c.label for c in scores.calibration]
    # Why conformal sets have no guarantee on these cases.
    caveat = joined_notes(
        MOVED if evaluation.is_moved else None, EXTERNAL if evaluation.name != "test" else None
    )
    conformal = judge_conformal(
        of_calibration,
        (judged.p, judged.labels),
        evaluation.scoring.conformal_miss_rate,
        judged.groups,
        judged.seed,
        caveat,
    )
    of_scores = _score_rows(judged)
    metrics = [*_rule_metric_rows(judged), *_further_metric_rows(judged), *of_scores.pop("metric")]
    rows = {
        "evaluation": [_evaluation_row(judged, verdict, of_dropout["mc_dropout"])],
        "prediction": _prediction_rows(judged),
        "calibration_prediction": _calibration_rows(judged),
        "metric": metrics,
        "decision_rule": rule_rows(scores.rules, scores.manifest.test_scored_at),
        "gate": gates,
        "reliability": reliability_rows(judged.labels, judged.p[:, 0]),
        "conformal": [conformal],
        **of_dropout,
        **of_scores,
    }
    id = evaluation_id(evaluation.scores_id)
    return {
        table: [{"evaluation_id": id, **row} for row in of_table]
        for table, of_table in rows.items()
    }


def _evaluation_row(judged: JudgedScores, verdict: Verdict, dropout: Rows) -> Row:
    evaluation = judged.evaluation
    manifest = judged.scores.manifest
    threshold = judged.primary.threshold
    created = datetime.fromisoformat(manifest.created).astimezone(UTC).replace(tzinfo=None)

    # Mean negative log-likelihood of a completion token; None for a baseline without one.
    losses = [case.loss for case in judged.cases if case.loss is not None]
    loss = None
    if len(losses) == len(judged.cases):
        loss = sum(losses) / sum(case.tokens for case in judged.cases)

    return {
        "training_id": training_of(evaluation.scores_id),
        "scores_id": evaluation.scores_id,
        "evaluation_set": evaluation.name,
        "set_digest": evaluation.entry.digest,
        "cases": len(judged.cases),
        "calibration_cases": len(judged.scores.calibration),
        "has_groups": evaluation.entry.has_groups,
        "accuracy": float(metric_values(confusion(judged.labels, judged.argmax))["accuracy"]),
        "primary_rule": evaluation.rule,
        "threshold": threshold.value if threshold else None,
        "verdict": verdict,
        "ed_prevalence": Counter(judged.labels)["ED"] / len(judged.labels),
        "score_seconds": manifest.score_seconds,
        "scoring_version": SCORING_VERSION,
        "created_at": created,
        "shortened_cases": manifest.shortened_cases,
        "cost_matrix": json.dumps(judged.costs) if judged.costs else None,
        "review_entropy": evaluation.scoring.review_entropy,
        "loss": loss,
        "perplexity": None if loss is None else math.exp(min(loss, LARGEST_EXPONENT)),
        "mc_status": "available" if dropout else "not available",
        "mc_reason": None if dropout else manifest.mc_status.removeprefix(NOT_AVAILABLE),
        "mc_passes": dropout[0]["passes"] if dropout else None,
        "mc_cases": len(dropout) if dropout else None,
        "mc_seconds": manifest.mc_seconds if dropout else None,
    }


def _prediction_rows(judged: JudgedScores) -> Rows:
    """One row per case of the judged set: its probabilities, and what each rule decides."""
    undecided = [None] * len(judged.cases)
    by_rule = {name: labels or undecided for name, labels in judged.decisions.items()}
    return [
        {
            "case_id": case.case_id,
            "case_digest": case.case_digest,
            "case_group": case.group,
            "label": case.label,
            "p_ed": case.p["ED"],
            "p_gp": case.p["GP"],
            "p_home": case.p["HOME"],
            "nll": None if case.loss is None else case.loss / case.tokens,
            "decision": by_rule[judged.evaluation.rule][i],
            **{name: labels[i] for name, labels in by_rule.items()},
        }
        for i, case in enumerate(judged.cases)
    ]


def _calibration_rows(judged: JudgedScores) -> Rows:
    """One row per calibration case, where this evaluation is the first with these scores: of a further
    set, and of a moved adapter that keeps its rules, they are those of another.
    """
    if judged.evaluation.name != "test" or judged.evaluation.is_moved:
        return []
    return [
        {"case_id": case.case_id, "label": case.label}
        | {f"p_{label.lower()}": p for label, p in case.p.items()}
        for case in judged.scores.calibration
    ]


def _rule_metric_rows(judged: JudgedScores) -> Rows:
    """Metric rows of the decisions of each rule."""
    rows = []
    cases = len(judged.labels)
    for rule, decisions in judged.decisions.items():
        note = judged.scores.rules.rules[rule].note
        if decisions is None:
            metrics = [metric_row(name, None, cases, note) for name in METRICS]
        else:
            metrics = metric_table(
                judged.labels, decisions, judged.groups, judged.costs, judged.seed
            )
            metrics = [row | {"note": joined_notes(row["note"], note)} for row in metrics]
        rows += [{"rule": rule, **row} for row in metrics]

    return rows


def _further_metric_rows(judged: JudgedScores) -> Rows:
    """Metric rows of calibration and of written answers, under argmax: no rule decides them."""
    metrics = calibration_table(judged.labels, judged.p, judged.groups, judged.seed)
    answers = judged.scores.answers
    if answers is not None:
        rows = judged.rows_of([answer.case_id for answer in answers])
        scored = [judged.argmax[row] for row in rows]
        groups = judged.groups_of(rows)
        metrics += generation_metrics(answers, scored, len(judged.cases), groups, judged.seed)

    return [{"rule": "argmax", **row} for row in metrics]


def generation_metrics(
    answers: Sequence[WrittenAnswer],
    scored: Sequence[str],
    cases: int,
    groups: Sequence[str | None] | None = None,
    seed: int = 0,
) -> Rows:
    """Metrics format_compliance (the answer is one label and nothing else) and generation_agreement
    (its only label is `scored`, the argmax of the probabilities) of a sample of `cases` cases.
    `scored` and `groups` belong to the answered cases.
    """
    note = f"greedy, {len(answers)} of {cases} cases"
    shares = {
        "format_compliance": [answer.exact for answer in answers],
        "generation_agreement": [
            answer.label == label for answer, label in zip(answers, scored, strict=True)
        ],
    }
    return [share_metric(name, hits, groups, seed, note) for name, hits in shares.items()]


def rule_rows(record: RuleRecord, scored_at: str) -> Rows:
    """Rows of decision_rule, one per rule. `scored_at`: when scoring the judged set began."""
    rows = []
    for rule in record.rules.values():
        threshold, scaling = rule.threshold, rule.scaling
        bias_ed, bias_gp, bias_home = scaling.biases if scaling else (None, None, None)
        rows.append(
            {
                "rule": rule.rule,
                "threshold": threshold and threshold.value,
                "allowed_misses": threshold and threshold.allowed_misses,
                "misses": threshold and threshold.misses,
                "n_ed": threshold and threshold.n_ed,
                "bound": threshold and threshold.bound,
                "temperature": scaling and scaling.temperature,
                "bias_ed": bias_ed,
                "bias_gp": bias_gp,
                "bias_home": bias_home,
                "at_bound": scaling and scaling.at_bound,
                "target": record.target if rule.rule == "target_recall" else None,
                "calibration_digest": record.calibration_digest,
                "chosen_at": record.chosen_at,
                "test_scored_at": scored_at,
                "note": rule.note,
            }
        )

    return rows


def _gates(judged: JudgedScores) -> tuple[Rows, Verdict]:
    """Gates of the primary rule; a rule that is not available passes none of them."""
    decisions = judged.primary_decisions
    # Judging the truth against itself gives each gate's threshold, method and number of cases.
    gates, verdict = judge_gates(
        judged.labels, decisions or judged.labels, judged.groups, judged.seed
    )
    if decisions is not None:
        return gates, verdict

    without = dict.fromkeys(("value", "bound", "successes", *interval_columns()))
    state = {"state": "NOT AVAILABLE", "note": judged.primary.note}
    return [gate | without | state for gate in gates], "unsafe"


def _score_rows(judged: JudgedScores) -> dict[str, Rows]:
    """Rows of metric (of each class on the whole set), net_benefit and subgroup_metric (every metric
    of the primary rule, and those of p(ED)); all share one set of resamples.
    """
    truth = label_codes(judged.labels)
    subgroups = subgroup_rows([case.subgroup or {} for case in judged.cases])
    everyone = np.arange(len(truth))
    whole = [ClassScores(label, judged.p, truth, everyone) for label in LABELS]
    parts = [ClassScores("ED", judged.p, truth, rows, MIN_UNITS) for rows in subgroups.values()]

    # A column for each subgroup: whether the case is of it.
    marks = [np.isin(everyone, rows).astype(np.int64) for rows in subgroups.values()]
    features = np.column_stack([judged.p, np.eye(len(LABELS))[truth], *marks])
    draws = UnitDraws.of(features, judged.groups, judged.seed)
    curve = decision_curve(judged.p[:, 0], (truth == 0).astype(np.int64), draws)
    metrics, of_curve = score_metrics([*whole, *parts], draws, curve)

    decisions = judged.primary_decisions
    of_rule = {}
    if decisions is not None:
        of_rule = subgroup_metrics(
            subgroups, judged.labels, decisions, judged.groups, judged.costs, judged.seed
        )

    apart = interval_columns()
    of_subgroups = []
    for subgroup, of_scores in zip(subgroups, metrics[len(whole) :], strict=True):
        field, value = subgroup
        for metric in [*of_rule.get(subgroup, []), *of_scores]:
            columns = {name: figure for name, figure in metric.items() if name not in apart}
            of_subgroups.append({"field": field, "subgroup": value, **columns})

    of_classes = [metric for of_class in metrics[: len(whole)] for metric in of_class]
    return {
        "metric": [{"rule": "argmax", **metric} for metric in of_classes],
        "net_benefit": net_benefits(curve, of_curve, draws),
        "subgroup_metric": of_subgroups,
    }


def _dropout_rows(judged: JudgedScores) -> dict[str, Rows]:
    """One row of mc_dropout per case that went through dropout, with its votes by argmax and by the
    primary rule; and one row of review_flag per score that can flag these cases for review.
    """
    passes = judged.scores.passes
    if passes is None or not passes.case_ids:
        return {"mc_dropout": [], "review_flag": []}

    summaries = summarise_passes(passes.p, judged.evaluation.scoring.review_entropy)
    votes = primary_votes(judged.primary, passes.p, judged.costs)
    of_cases = [
        {"case_id": case_id, **summary, **vote}
        for case_id, summary, vote in zip(passes.case_ids, summaries, votes, strict=True)
    ]

    flags = []
    if (decisions := judged.primary_decisions) is not None:
        rows = judged.rows_of(passes.case_ids)
        flags = judge_review(
            [summary["review"] for summary in summaries],
            [summary["entropy_nats"] for summary in summaries],
            judged.p[rows],
            [judged.labels[row] for row in rows],
            [decisions[row] for row in rows],
            judged.groups_of(rows),
            judged.seed,
        )

    return {
        "mc_dropout": of_cases,
        "review_flag": [{"cases": len(of_cases), **flag} for flag in flags],
    }


def primary_votes(rule: ChosenRule, p: Floats, costs: Costs | None = None) -> Rows:
    """The primary rule's votes in the passes (passes, cases, 3) of each case; ties go to the more
    urgent label. None without such a rule.
    """
    names = ("decision_majority", "decision_confidence", "decision_entropy_nats")
    passes, cases = p.shape[:2]
    flat = rule.decide(p.reshape(-1, len(LABELS)), costs)
    if flat is None:
        return [dict.fromkeys(names)] * cases

    decisions = np.array(flat).reshape(passes, cases)
    shares = np.stack([(decisions == label).mean(axis=0) for label in LABELS], axis=1)
    majorities = [LABELS[place] for place in shares.argmax(axis=1)]
    columns = (majorities, shares.max(axis=1).tolist(), entropy_nats(shares).tolist())
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
