"""What a model writes when it is left to write: greedy answers to a sample, read word by word. Secondary to scoring."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.scoring.intervals import clopper_pearson
from tasks.scoring.metrics import EXACT, INDEPENDENT, NO_INTERVAL, Metric
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


def generation_metrics(answers: Sequence[Answer], scored: Sequence[str], cases: int) -> list[Metric]:
    """format_compliance (the answer is one label and nothing else) and generation_agreement (its one label is the
    scored argmax; an answer without one disagrees). `cases`: how many the whole set has."""
    if not answers:
        note = "not available: no answers were generated"
        return [Metric(name, None, None, None, NO_INTERVAL, 0, note) for name in NAMES]
    hits = (sum(a.exact for a in answers), sum(a.label == s for a, s in zip(answers, scored, strict=True)))
    note = f"greedy, {len(answers)} of {cases} cases; {INDEPENDENT}"
    return [_share(name, k, len(answers), note) for name, k in zip(NAMES, hits, strict=True)]


def _share(name: str, k: int, n: int, note: str) -> Metric:
    low, high = clopper_pearson(k, n)
    return Metric(name, k / n, low, high, EXACT, n, note, exact_low=low, exact_high=high)


NAMES = ("format_compliance", "generation_agreement")
