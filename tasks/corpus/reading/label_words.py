"""Words that stand for a label: the user's own beside ED, GP and HOME; and which unknown values may
be shown."""

from __future__ import annotations

import json
import re
import shlex

from tasks.corpus.case import normal_text
from tasks.corpus.reading.columns import LONGEST_WITHOUT_CAPITALS, has_capitals, shown
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Columns, EvaluationSet, Label

WHOLE = re.compile(r"(-?[0-9]+)\.0+")
LONGEST_WORD = 20  # characters of an unknown label that may be shown
# A number of more digits may be a patient's.
MOST_DIGITS = 2
# What labels of several words are made of. No word of a complaint stands here.
WORDS_OF_LABELS = """
a amber ambulance and appointment asap black blue call care category class day days department
doctor ed emergency er esi for gp green group here high home hospital immediate in less level
life low medium moderate non normal not now nurse of on or orange pharmacy practice primary
priority red routine see seen self semi severity soon standard stay the threatening to today
tomorrow triage urgency urgent very visit wait week within yellow
"""


def label_words(columns: Columns) -> dict[str, Label]:
    """The label of every accepted word, written as `normal_text` writes it.

    Raises BadInput where the user maps one word to two labels, or a label to another label.
    """
    # By the normal form of a word: the word as the user writes it, for the error, and its label.
    mapped: dict[str, tuple[str, Label]] = {}
    for word, label in columns.labels.items():
        normal = normal_text(without_zero_decimals(word))
        _check_other_label(columns, word, label)
        first, first_label = mapped.setdefault(normal, (word, label))
        if first_label != label:
            raise BadInput(
                f"{_setting(columns)} maps {shown(first)} to {first_label} and {shown(word)} to "
                f"{label}, but case and spaces do not count, so they are one word; remove one of "
                "the two."
            )

    words = {normal_text(label): label for label in LABELS}
    words |= {word: label for word, (_, label) in mapped.items()}

    # In capitals too, so that a label that is written so is found at the first look.
    return words | {label: words[normal_text(label)] for label in LABELS}


def _check_other_label(columns: Columns, word: str, label: Label) -> None:
    """Refuse a word that is a label itself, and another one: cases would silently change theirs."""
    itself = next(
        (candidate for candidate in LABELS if normal_text(candidate) == normal_text(word)), label
    )
    if itself != label:
        raise BadInput(
            f"{_setting(columns)} maps {shown(word)} to {label}, but that word is the label "
            f"{itself} itself; remove it, or write another word in the table."
        )


def _setting(columns: Columns) -> str:
    if isinstance(columns, EvaluationSet):
        return f"labels of the evaluation set {columns.name}"
    return "[data.labels]"


def unknown_label(word: str, column: str, location: str) -> BadInput:
    """The error for a value that is no label. It is shown only if it looks like a label word."""
    if not may_be_shown(word):
        return BadInput(
            f"{location}: has an unknown label of {len(word)} characters in '{column}', which is "
            "not "
            'shown since it may be a patient\'s words; use ED, GP or HOME, map "your word" under '
            "[data.labels] (--label WORD=ED), or name the right column as label_column "
            "(--label-column)."
        )

    # TOML has no surrogate pairs, so that other characters stand for themselves.
    example = json.dumps(word, ensure_ascii=False)
    return BadInput(
        f"{location}: has the unknown label {shown(word)}; use ED, GP or HOME, or map it under "
        f'[data.labels]: {example} = "ED" (--label {shlex.quote(f"{word}=ED")}).'
    )


def may_be_shown(word: str) -> bool:
    """Whether a value looks like a label: one short word, or words that labels are made of.

    A short text of a patient ("chest pain") must not be repeated, nor a number that is one's.
    """
    if not word.isprintable() or sum(sign.isdigit() for sign in word) > MOST_DIGITS:
        return False

    known_words = WORDS_OF_LABELS.split()
    words = re.split(r"[\s_/-]+", word.casefold())
    if len(words) > 1 and all(part in known_words or part.isdigit() for part in words):
        return len(word) <= 2 * LONGEST_WORD

    longest = LONGEST_WORD if has_capitals(word) else LONGEST_WITHOUT_CAPITALS
    return len(word.split()) == 1 and "@" not in word and len(word) <= longest


def without_zero_decimals(word: str) -> str:
    """7.0 as 7: pandas writes whole numbers so where another row has none."""
    whole = WHOLE.fullmatch(word)
    return whole[1] if whole else word
