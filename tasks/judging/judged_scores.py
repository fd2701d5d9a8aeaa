"""One evaluation: how its scores are judged, and the decisions of its rules on the judged set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.judging.choose_rules import Decisions, refuse_overlap
from tasks.judging.conformal import EXTERNAL, MOVED
from tasks.judging.inputs import LabelledProbabilities
from tasks.judging.metrics import joined_notes
from tasks.judging.point_metrics import Floats
from tasks.judging.scores_folder import (
    EvaluationScores,
    ScoredCase,
    probability_table,
    set_scores,
)
from tasks.spec import Label, Scoring

Row = dict[str, Any]  # one row of a table of the warehouse, by column
Rows = list[Row]


@dataclass(frozen=True)
class Evaluation:
    """The ids of an evaluation, and how its scores are judged.

    `rule`: the primary rule, which the gates are about; `set_digest` and `has_groups`: of the
    judged set, whose name is `evaluation_set`; `is_moved`: the rules, and the scores of the
    calibration cases, are those of the adapter at its own precision.
    """

    evaluation_id: str
    scores_id: str
    training_id: str
    set_digest: str
    has_groups: bool
    rule: str
    scoring: Scoring
    seed: int
    evaluation_set: str = "test"
    is_moved: bool = False

    @property
    def conformal_caveat(self) -> str | None:
        """Why conformal sets have no guarantee on the judged cases; None where they have it."""
        external = EXTERNAL if self.evaluation_set != "test" else None
        return joined_notes(MOVED if self.is_moved else None, external)


@dataclass(frozen=True)
class JudgedScores:
    """Scores with the decisions of each rule on the judged set, by the name of the rule."""

    evaluation: Evaluation
    scores: EvaluationScores
    decisions: dict[str, Decisions]

    @classmethod
    def of(cls, evaluation: Evaluation, scores: EvaluationScores) -> JudgedScores:
        """Apply the recorded rules to the judged set.

        Raises BadInput if a case is in both the calibration and the judged set.
        """
        judged_set = set_scores(scores.judged, evaluation.evaluation_set)
        refuse_overlap(set_scores(scores.calibration), judged_set)
        costs = evaluation.scoring.cost_matrix
        decisions = {
            name: rule.decide(judged_set.p, costs) for name, rule in scores.rules.rules.items()
        }
        return cls(evaluation, scores, decisions)

    @property
    def cases(self) -> list[ScoredCase]:
        """The cases of the judged set."""
        return self.scores.judged

    @cached_property
    def labels(self) -> list[Label]:
        return [case.label for case in self.cases]

    @cached_property
    def groups(self) -> list[str | None] | None:
        """The group of each case; None for a set without groups."""
        if not self.evaluation.has_groups:
            return None
        return [case.group for case in self.cases]

    @cached_property
    def p(self) -> Floats:
        """Label probabilities, shape (cases, 3)."""
        return probability_table(self.cases)

    @property
    def labelled(self) -> LabelledProbabilities:
        return LabelledProbabilities(self.p, self.labels, self.groups)

    @property
    def primary(self) -> Decisions:
        """The decisions of the primary rule."""
        return self.decisions[self.evaluation.rule]

    @property
    def argmax(self) -> list[Label]:
        return self.decisions["argmax"].labels or []

    def rows_of(self, case_ids: list[str]) -> list[int]:
        """Positions of the given cases in the judged set."""
        position = {case.case_id: row for row, case in enumerate(self.cases)}
        return [position[case_id] for case_id in case_ids]

    def groups_of(self, rows: list[int]) -> list[str | None] | None:
        """The groups of the cases at these positions; None for a set without groups."""
        groups = self.groups
        return [groups[row] for row in rows] if groups else None
