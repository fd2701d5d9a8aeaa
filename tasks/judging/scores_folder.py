"""A scores folder: what scoring writes and judging reads, without patient text; and the decisions of
the rules on what it holds (JudgedScores).

calibration.jsonl and test.jsonl hold a ScoredCase per line; test.jsonl is the judged set, whatever
its name. rules.json holds the RuleRecord. Where the model has dropout, passes.npy (passes, cases,
3) and passes.json (case ids) hold the dropout passes; where answers were generated, answers.jsonl
holds a WrittenAnswer per line. The manifest is a ScoresManifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.judging.decision_rules import RECORD, ChosenRule, RuleRecord
from tasks.judging.intervals import Groups
from tasks.judging.metrics import Metric, share_metric
from tasks.judging.point_metrics import Floats
from tasks.runtime.errors import BadInput
from tasks.runtime.files import read_lines
from tasks.runtime.store import Manifest
from tasks.spec import LABELS, Label, Scoring

Row = dict[str, Any]  # one row of a table of the warehouse, by column
Rows = list[Row]

CALIBRATION_FILE = "calibration.jsonl"
JUDGED_FILE = "test.jsonl"
ANSWERS_FILE = "answers.jsonl"
PASSES_FILE = "passes.npy"
PASSES_IDS_FILE = "passes.json"
NOT_AVAILABLE = "not available: "
ANSWER_METRICS = ("format_compliance", "generation_agreement")
LABELS_THEMSELVES: Mapping[Label, str] = {label: label for label in LABELS}


@dataclass(frozen=True, kw_only=True)
class ScoredCase:
    """One case and the probabilities of its labels.

    The losses are negative log-likelihoods in nats: of the label's tokens, and of the other of the
    `tokens` completion tokens. They are None for a baseline that is no language model.
    """

    case_id: str
    label: Label
    group: str | None
    subgroup: dict[str, str] = field(default_factory=dict)
    case_digest: str
    p: dict[Label, float]
    label_loss: float | None = None
    other_loss: float | None = None
    tokens: int = 0

    @property
    def probabilities(self) -> list[float]:
        """In the order LABELS."""
        return [self.p[label] for label in LABELS]

    @property
    def loss(self) -> float | None:
        """Negative log-likelihood of the whole completion, in nats."""
        if self.label_loss is None or self.other_loss is None:
            return None
        return self.label_loss + self.other_loss


@dataclass(frozen=True)
class WrittenAnswer:
    """What a model wrote to a case: `exact`, whether it is a label and nothing else; `label`, the
    only label among its words, or None. Secondary: decisions come from probabilities.
    """

    case_id: str
    exact: bool
    label: Label | None


@dataclass(frozen=True)
class DropoutPasses:
    """Label probabilities (passes, cases, 3) of a sample of the judged set under dropout."""

    case_ids: list[str]
    p: Floats


class ScoringRecord(BaseModel):
    """When and how a set was scored.

    mc_status: "available", or "not available: " and the reason why there are no dropout passes;
    test_scored_at: when the scoring of the judged set began (UTC, ISO 8601); shortened_cases: cases
    that lost the middle of their text.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    score_seconds: float | None
    mc_seconds: float | None
    mc_status: str
    test_scored_at: str
    shortened_cases: int

    @property
    def why_no_passes(self) -> str:
        return self.mc_status.removeprefix(NOT_AVAILABLE)


class ScoresManifest(ScoringRecord, Manifest):
    """The manifest of a scores folder; `created`: when it was completed (ISO 8601).

    `digest` is empty for scores that are not stored, those of a baseline.
    """

    created: str


@dataclass(frozen=True)
class EvaluationScores:
    """The content of a scores folder. `judged`: the cases of the judged set."""

    calibration: list[ScoredCase]
    judged: list[ScoredCase]
    rules: RuleRecord
    manifest: ScoresManifest
    passes: DropoutPasses | None = None
    answers: list[WrittenAnswer] | None = None


def read_scores(folder: Path) -> EvaluationScores:
    """The content of a scores folder. Raises BrokenFolder if a file does not match its digest."""
    manifest = ScoresManifest.read(folder, deep=True)
    passes = None
    if (folder / PASSES_FILE).is_file():
        case_ids = json.loads((folder / PASSES_IDS_FILE).read_text())
        passes = DropoutPasses(case_ids, np.load(folder / PASSES_FILE, allow_pickle=False))

    answers = None
    if (folder / ANSWERS_FILE).is_file():
        answers = [WrittenAnswer(**line) for line in read_lines(folder / ANSWERS_FILE)]
    return EvaluationScores(
        calibration=read_cases(folder / CALIBRATION_FILE),
        judged=read_cases(folder / JUDGED_FILE),
        rules=RuleRecord.from_json((folder / RECORD).read_text()),
        manifest=manifest,
        passes=passes,
        answers=answers,
    )


def read_cases(path: Path) -> list[ScoredCase]:
    """The scored cases of a file of this folder, in its order."""
    return [ScoredCase(**line) for line in read_lines(path)]


def write_lines(path: Path, records: Iterable[ScoredCase | WrittenAnswer]) -> None:
    """Write a file of this folder, one line of JSON per record."""
    with path.open("w", encoding="utf-8") as handle:
        for record in records:
            handle.write(json.dumps(asdict(record)) + "\n")


def probability_table(cases: Sequence[ScoredCase]) -> Floats:
    """Label probabilities, shape (cases, 3) in the order LABELS."""
    return np.array([case.probabilities for case in cases]).reshape(-1, len(LABELS))


def refuse_overlap(
    calibration: Sequence[ScoredCase], judged: Sequence[ScoredCase], evaluation_set: str
) -> None:
    """Raise BadInput if a case is in both sets, by id or by the digest of its text: a rule chosen on
    test cases proves nothing.

    The ids of an external set and the dataset's may both count from 1, so they are not compared.
    """
    identifiers = {"case id": "case_id", "text digest": "case_digest"}
    if evaluation_set != "test":
        del identifiers["case id"]
    for identifier, name in identifiers.items():
        of_calibration = {getattr(case, name) for case in calibration}
        shared = sorted(of_calibration & {getattr(case, name) for case in judged})
        if shared:
            raise BadInput(
                f"The calibration set overlaps the test set in {len(shared)} cases "
                f"(same {identifier}, first {shared[0]!r}): "
                "split the cases again so that each is in one set only."
            )


def read_answer(
    case_id: str, text: str, words: Mapping[Label, str] = LABELS_THEMSELVES
) -> WrittenAnswer:
    """Read a generated answer. `words`: the answer for each label.

    Only whole words as they are spelt count: "ED" inside "needed" or "recommendED" is no decision.
    """
    named_labels = [
        label
        for label in LABELS
        if re.search(rf"(?<!\w){re.escape(words[label])}(?!\w)", text) is not None
    ]
    is_exact = text.strip() in words.values()
    return WrittenAnswer(case_id, is_exact, named_labels[0] if len(named_labels) == 1 else None)


def generation_metrics(
    answers: Sequence[WrittenAnswer],
    scored: Sequence[str],
    cases: int,
    groups: Groups | None = None,
    seed: int = 0,
) -> list[Metric]:
    """Metrics format_compliance and generation_agreement of a sample of `cases` cases.

    format_compliance: the answer is one label and nothing else. generation_agreement: its only
    label is `scored`, the argmax of the label probabilities; an answer without one disagrees.
    `scored` and `groups` belong to the answered cases.
    """
    is_exact = [answer.exact for answer in answers]
    agrees = [answer.label == label for answer, label in zip(answers, scored, strict=True)]
    note = f"greedy, {len(answers)} of {cases} cases"
    return [
        share_metric(name, hits, groups, seed, note)
        for name, hits in zip(ANSWER_METRICS, (is_exact, agrees), strict=True)
    ]


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


@dataclass(frozen=True)
class JudgedScores:
    """Scores with the decisions of each rule on the judged set, by the name of the rule; None where
    it is not available.
    """

    evaluation: Evaluation
    scores: EvaluationScores
    decisions: dict[str, list[Label] | None]

    @classmethod
    def of(cls, evaluation: Evaluation, scores: EvaluationScores) -> JudgedScores:
        """Apply the recorded rules to the judged set.

        Raises BadInput if a case is in both the calibration and the judged set.
        """
        refuse_overlap(scores.calibration, scores.judged, evaluation.evaluation_set)
        p = probability_table(scores.judged)
        costs = evaluation.scoring.cost_matrix
        decisions = {name: rule.decide(p, costs) for name, rule in scores.rules.rules.items()}
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
    def primary(self) -> ChosenRule:
        """The primary rule."""
        return self.scores.rules.rules[self.evaluation.rule]

    @property
    def primary_decisions(self) -> list[Label] | None:
        return self.decisions[self.evaluation.rule]

    @property
    def argmax(self) -> list[Label]:
        return self.decisions["argmax"] or []

    def rows_of(self, case_ids: list[str]) -> list[int]:
        """Positions of the given cases in the judged set."""
        position = {case.case_id: row for row, case in enumerate(self.cases)}
        return [position[case_id] for case_id in case_ids]

    def groups_of(self, rows: list[int]) -> list[str | None] | None:
        """The groups of the cases at these positions; None for a set without groups."""
        groups = self.groups
        return [groups[row] for row in rows] if groups else None
