"""One patient text with its label, which sets store as a line of JSON; and texts and groups as they
are compared with each other. What is stored and shown keeps its spelling.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import get_args

from tasks.spec import Label, SetName

SETS: tuple[SetName, ...] = get_args(SetName)
MOST_SHOWN = 20  # of what is wrong in one way, in an error


@dataclass(frozen=True, slots=True)
class Case:
    """A text with its label. `group` keeps related cases on one side of a split; `subgroup` (facts for
    reports) and `rationale` (why the label) are never shown to a model.
    """

    case_id: str
    text: str
    label: Label
    group: str | None = None
    subgroup: dict[str, str] = field(default_factory=dict)
    rationale: str | None = None


def to_json(case: Case) -> str:
    """One line of JSON without the line break; characters beyond ASCII stay readable."""
    entry = asdict(case)
    if case.rationale is None:
        del entry["rationale"]
    return json.dumps(entry, ensure_ascii=False)


def from_json(line: str) -> Case:
    """The inverse of `to_json`, for the project's own files (`reading` reads users' files)."""
    return Case(**json.loads(line))


def normal_text(text: str) -> str:
    """The text in one case and with single spaces: texts that are equal so are the same text."""
    return " ".join(text.casefold().split())


def listed(parts: Sequence[str], joiner: str = "and") -> str:
    """The parts as one phrase: `a`, `a and b`, `a, b and c`."""
    *first, last = parts
    return f"{', '.join(first)} {joiner} {last}" if first else last


def several(parts: Sequence[object], separator: str = ", ") -> str:
    """The first parts, and how many more there are beyond MOST_SHOWN."""
    shown = separator.join(map(str, parts[:MOST_SHOWN]))
    rest = len(parts) - MOST_SHOWN
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def can_be_encoded(text: str) -> bool:
    """Whether a text holds whole characters only: half a surrogate pair has no bytes and no digest."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False

    return True


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def exact_digest(text: str) -> str:
    """SHA-256 (hex) of a text as it is: it joins scores, prediction rows and a user's own file."""
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=2)  # a reader and a checker ask for the same text one after the other
def text_digest(text: str) -> str:
    """16 hex digits that identify a text up to case and spacing."""
    return hashlib.sha256(normal_text(text).encode()).hexdigest()[:16]


BETWEEN_WORDS = ("P", "S", "Z")  # first letters of Unicode categories: punctuation, symbols, spaces
VARIATION_SELECTORS = range(0xFE00, 0xFE10)
# Scripts without spaces between words: a word of theirs cannot be told by its signs alone.
WITHOUT_SPACES = (
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Myanmar
    range(0x1780, 0x1800),  # Khmer
    range(0x3040, 0x3130),  # Hiragana, Katakana, Bopomofo
    range(0x31F0, 0x3200),  # Katakana
    range(0x3400, 0x4DC0),  # Han
    range(0x4E00, 0xA000),
    range(0x20000, 0x40000),
)


class _ComparedSigns(dict[int, str]):
    """What replaces each sign beyond ASCII in a comparison, computed once."""

    def __missing__(self, code: int) -> str:
        sign = chr(code)
        category = unicodedata.category(sign)
        compared = sign
        if code < 128:
            pass
        elif category == "Cf" or code in VARIATION_SELECTORS:  # invisible: within a word too
            compared = ""
        elif category[0] in BETWEEN_WORDS or category == "Cc":
            compared = " "
        elif any(code in script for script in WITHOUT_SPACES):
            compared = f" {sign} "

        self[code] = compared
        return compared


COMPARED_SIGNS = _ComparedSigns()


def compared_text(text: str) -> str:
    """A text in small letters with its words as they are compared.

    Beyond ASCII, signs between words become spaces, all writings of a character become one, and
    each sign of a script without spaces becomes a word.
    """
    if text.isascii():
        return text.casefold()
    return _one_form(text).translate(COMPARED_SIGNS)


def compared_digest(text: str) -> str:
    """A key that texts share if they differ in case, spacing, or signs that are not compared. That
    of an ASCII text, and of one without a letter, is its `text_digest`.
    """
    if text.isascii():
        return text_digest(text)
    compared = compared_text(text)
    return text_digest(compared if compared.strip() else text)


def compared_group(group: str) -> str:
    """The name of a group as groups are compared: case, spacing and form of Unicode do not count."""
    return normal_text(_one_form(group))


def _one_form(text: str) -> str:
    """One Unicode form of all writings of a text, in small letters."""
    if text.isascii():
        return text.casefold()
    # Twice: the small letters of a sign can have another form.
    small = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", small)


def with_one_spelling(cases: Sequence[Case]) -> list[Case]:
    """The cases in order, where each group has one spelling: the first of the alphabet, so that it
    does not depend on the order of rows.
    """
    spellings: dict[str, str] = {}
    for group in {case.group for case in cases if case.group is not None}:
        key = compared_group(group)
        spellings[key] = min(group, spellings.get(key, group))

    def renamed(case: Case) -> Case:
        spelling = None if case.group is None else spellings[compared_group(case.group)]
        return case if spelling == case.group else replace(case, group=spelling)

    return list(map(renamed, cases))
