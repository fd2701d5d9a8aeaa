"""A scores folder: what scoring writes and judging reads, without patient text.

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
from pathlib import Path

import numpy as np

from tasks.judging.decision_rules import RECORD, RuleRecord
from tasks.judging.point_metrics import Floats
from tasks.runtime.files import read_lines
from tasks.runtime.store import Manifest
from tasks.spec import LABELS, Label

CALIBRATION_FILE = "calibration.jsonl"
JUDGED_FILE = "test.jsonl"
ANSWERS_FILE = "answers.jsonl"
PASSES_FILE = "passes.npy"
PASSES_IDS_FILE = "passes.json"
NOT_AVAILABLE = "not available: "
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


class ScoresManifest(Manifest):
    """The manifest of a scores folder: when and how a set was scored.

    mc_status: "available", or "not available: " and why there are no dropout passes; test_scored_at:
    when the scoring of the judged set began; created: when the folder was completed (both ISO 8601);
    shortened_cases: cases that lost the middle of their text. The `digest` of scores that are not
    stored, those of a baseline, is empty.
    """

    score_seconds: float | None
    mc_seconds: float | None
    mc_status: str
    test_scored_at: str
    shortened_cases: int
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
    p = [[case.p[label] for label in LABELS] for case in cases]
    return np.array(p).reshape(-1, len(LABELS))


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
