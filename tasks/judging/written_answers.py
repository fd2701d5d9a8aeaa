"""Greedy answers that a model writes to a sample of cases, read word by word.

They are secondary: decisions come from the probabilities of the labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.judging.intervals import Groups
from tasks.judging.metrics import Metric
from tasks.judging.shares import share_metric
from tasks.spec import LABELS, Label

ANSWER_METRICS = ("format_compliance", "generation_agreement")
LABELS_THEMSELVES: Mapping[Label, str] = {label: label for label in LABELS}


@dataclass(frozen=True)
class ParsedAnswer:
    """A read answer.

    `exact`: the text is a label and nothing else. `label`: the only label among its words, or None.
    """

    exact: bool
    label: Label | None


def read_answer(text: str, words: Mapping[Label, str] = LABELS_THEMSELVES) -> ParsedAnswer:
    """Read a generated answer. `words`: the answer for each label.

    Only whole words as they are spelt count: "ED" inside "needed" or "recommendED" is no decision.
    """
    named_labels = [label for label in LABELS if _stands_in(text, words[label])]
    is_exact = text.strip() in words.values()
    return ParsedAnswer(exact=is_exact, label=named_labels[0] if len(named_labels) == 1 else None)


def _stands_in(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def generation_metrics(
    answers: Sequence[ParsedAnswer],
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
    if not answers:
        note = "not available: no answers were generated"
        return [Metric.without_value(name, 0, note) for name in ANSWER_METRICS]

    is_exact = [answer.exact for answer in answers]
    agrees = [answer.label == label for answer, label in zip(answers, scored, strict=True)]
    note = f"greedy, {len(answers)} of {cases} cases"
    return [
        share_metric(name, hits, groups, seed, note)
        for name, hits in zip(ANSWER_METRICS, (is_exact, agrees), strict=True)
    ]
