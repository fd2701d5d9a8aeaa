"""Rows of the tables about uncertainty: mc_dropout, review_flag, reliability and conformal.

The other tables of an evaluation are in `tasks/judging/evaluation_rows.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tasks.judging.calibration import reliability_rows
from tasks.judging.conformal import judge_conformal
from tasks.judging.inputs import LabelledProbabilities
from tasks.judging.judged_scores import JudgedScores, Row, Rows
from tasks.judging.point_metrics import Floats
from tasks.judging.review_flag import JudgedFlag, judge_review
from tasks.judging.scores_folder import probability_table
from tasks.judging.uncertainty import McCase, entropy_nats, summarise_passes
from tasks.spec import LABELS, Label


@dataclass(frozen=True)
class DropoutSummary:
    """The cases that went through dropout, summarised by argmax; both lists have the same order."""

    case_ids: list[str]
    cases: list[McCase]

    @property
    def passes(self) -> int:
        return self.cases[0].passes


@dataclass(frozen=True)
class PrimaryVotes:
    """The primary rule's votes in the passes of one case, as columns; None without such a rule."""

    decision_majority: Label | None = None
    decision_confidence: float | None = None
    decision_entropy_nats: float | None = None


def probability_columns(p: Sequence[float]) -> Row:
    """Columns p_ed, p_gp and p_home from probabilities in the order LABELS."""
    return {f"p_{label.lower()}": float(value) for label, value in zip(LABELS, p, strict=True)}


def summarise_dropout(judged: JudgedScores) -> DropoutSummary | None:
    """The summary of the dropout passes; None without any."""
    passes = judged.scores.passes
    if passes is None or not passes.case_ids:
        return None
    review_entropy = judged.evaluation.scoring.review_entropy
    return DropoutSummary(passes.case_ids, summarise_passes(passes.p, review_entropy))


def mc_dropout_rows(judged: JudgedScores, dropout: DropoutSummary | None) -> Rows:
    """One row per case that went through dropout; its votes by argmax and by the primary rule."""
    passes = judged.scores.passes
    if passes is None or dropout is None:
        return []

    votes = _primary_votes(judged, passes.p)
    return [
        _mc_dropout_row(judged.evaluation.evaluation_id, case_id, case, vote)
        for case_id, case, vote in zip(dropout.case_ids, dropout.cases, votes, strict=True)
    ]


def _mc_dropout_row(evaluation_id: str, case_id: str, case: McCase, votes: PrimaryVotes) -> Row:
    columns = asdict(case)
    means = columns.pop("mean_probabilities")
    return {
        "evaluation_id": evaluation_id,
        "case_id": case_id,
        **columns,
        **probability_columns(means),
        **asdict(votes),
    }


def _primary_votes(judged: JudgedScores, p: Floats) -> list[PrimaryVotes]:
    """The primary rule's votes in each case's passes; ties go to the more urgent label."""
    passes, cases = p.shape[:2]
    if judged.primary.labels is None:
        return [PrimaryVotes()] * cases

    flat = judged.primary.apply(p.reshape(-1, len(LABELS)), judged.evaluation.scoring.cost_matrix)
    decisions = np.array(flat).reshape(passes, cases)
    shares = np.stack([(decisions == label).mean(axis=0) for label in LABELS], axis=1)
    return [
        PrimaryVotes(LABELS[int(share.argmax())], float(share.max()), float(entropy_nats(share)))
        for share in shares
    ]


def review_flag_rows(judged: JudgedScores, dropout: DropoutSummary | None) -> Rows:
    """One row per score that can flag cases for review, on the cases that went through dropout."""
    decisions = judged.primary.labels
    if dropout is None or decisions is None:
        return []

    rows = judged.rows_of(dropout.case_ids)
    flags = judge_review(
        [case.review for case in dropout.cases],
        [case.entropy_nats for case in dropout.cases],
        judged.p[rows],
        [judged.labels[row] for row in rows],
        [decisions[row] for row in rows],
        judged.groups_of(rows),
        judged.evaluation.seed,
    )
    return [_review_flag_row(judged.evaluation.evaluation_id, len(rows), flag) for flag in flags]


def _review_flag_row(evaluation_id: str, cases: int, flag: JudgedFlag) -> Row:
    columns = asdict(flag)
    quality = columns.pop("quality")
    return {"evaluation_id": evaluation_id, "cases": cases, **columns, **quality}


def reliability_table_rows(judged: JudgedScores) -> Rows:
    """One row per bin of p(ED)."""
    evaluation_id = judged.evaluation.evaluation_id
    bins = reliability_rows(judged.labels, judged.p[:, 0])
    return [{"evaluation_id": evaluation_id, **asdict(row)} for row in bins]


def conformal_rows(judged: JudgedScores) -> Rows:
    """One row: the conformal sets of the judged set."""
    evaluation = judged.evaluation
    calibration = judged.scores.calibration
    conformal = judge_conformal(
        LabelledProbabilities(probability_table(calibration), [case.label for case in calibration]),
        judged.labelled,
        evaluation.scoring.conformal_miss_rate,
        evaluation.seed,
        evaluation.conformal_caveat,
    )

    return [{"evaluation_id": evaluation.evaluation_id, **asdict(conformal)}]
