"""What a model writes when it is left to write: greedy answers to a sample, read word by word. Secondary to scoring."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.judging.intervals import Groups
from tasks.judging.metrics import NO_INTERVAL, Metric
from tasks.judging.shares import share_metric
from tasks.spec import LABELS, Label

WORDS = re.compile(rf"\b({'|'.join(LABELS)})\b")


@dataclass(frozen=True)
class Answer:
    """`exact`: the text is a label and nothing else. `label`: the one label among its words, None where there is not one."""

    exact: bool
    label: Label | None


def read_answer(text: str) -> Answer:
    """Read a generated answer. Whole words in capitals only: "ED" inside "needed" or "recommendED" is no decision."""
    found = {label for label in LABELS if label in WORDS.findall(text)}
    return Answer(text.strip() in LABELS, next(iter(found)) if len(found) == 1 else None)


def generation_metrics(
    answers: Sequence[Answer],
    scored: Sequence[str],
    cases: int,
    groups: Groups | None = None,
    seed: int = 0,
) -> list[Metric]:
    """format_compliance (the answer is one label and nothing else) and generation_agreement (its one label is the
    scored argmax; an answer without one disagrees). `cases`: how many the whole set has; `groups`: of the answered ones."""
    if not answers:
        note = "not available: no answers were generated"
        return [Metric(name, None, None, None, NO_INTERVAL, 0, note) for name in NAMES]
    hits = (
        [a.exact for a in answers],
        [a.label == s for a, s in zip(answers, scored, strict=True)],
    )
    note = f"greedy, {len(answers)} of {cases} cases"
    return [
        share_metric(name, found, groups, seed, note)
        for name, found in zip(NAMES, hits, strict=True)
    ]


NAMES = ("format_compliance", "generation_agreement")
