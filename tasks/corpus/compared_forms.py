"""Texts and groups as they are compared with each other; what is stored and shown keeps its
spelling, and ids come from `text_digest`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from tasks.corpus.case import Case, normal_text, text_digest

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
    """What stands for a sign beyond ASCII in a comparison, found out once for each."""

    def __missing__(self, code: int) -> str:
        self[code] = compared = _compared_sign(code)
        return compared


def _compared_sign(code: int) -> str:
    sign = chr(code)
    category = unicodedata.category(sign)
    if code < 128:
        return sign
    if category == "Cf" or code in VARIATION_SELECTORS:  # invisible: within a word too
        return ""
    if category[0] in BETWEEN_WORDS or category == "Cc":
        return " "
    return f" {sign} " if any(code in script for script in WITHOUT_SPACES) else sign


COMPARED_SIGNS = _ComparedSigns()


def compared_text(text: str) -> str:
    """A text in small letters with its words as they are compared.

    Beyond ASCII, whose signs between words are known by their bytes, no typographic sign, form of
    Unicode or full stop makes another text: such signs become spaces, and each sign of a script
    without spaces becomes a word.
    """
    if text.isascii():
        return text.casefold()
    return _one_form(text).translate(COMPARED_SIGNS)


def compared_digest(text: str) -> str:
    """A key that texts share if they differ in case, spacing, or signs that are not compared.

    That of an ASCII text, and of one without a letter, is its `text_digest`.
    """
    if text.isascii():
        return text_digest(text)
    compared = compared_text(text)
    return text_digest(compared if compared.strip() else text)


def compared_group(group: str) -> str:
    """The name of a group as groups are compared: case, spacing and form of Unicode do not count."""
    return normal_text(_one_form(group))


def _one_form(text: str) -> str:
    """One Unicode form of all writings of a text, in small letters.

    Small letters of a sign can have another form, and a sign of another form can be a capital.
    """
    if text.isascii():
        return text.casefold()
    small = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", small)


def with_one_spelling(cases: Sequence[Case]) -> list[Case]:
    """The cases in order, where each group has one spelling.

    That is the first in the order of the alphabet, so that it does not depend on the order of rows.
    """
    spellings: dict[str, str] = {}
    for group in {case.group for case in cases if case.group is not None}:
        key = compared_group(group)
        spellings[key] = min(group, spellings.get(key, group))

    return [_spelled(case, spellings) for case in cases]


def _spelled(case: Case, spellings: dict[str, str]) -> Case:
    if case.group is None:
        return case
    spelling = spellings[compared_group(case.group)]
    return case if spelling == case.group else replace(case, group=spelling)
