"""The columns that a user's table must have, and the error that names all missing ones at once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.runtime.errors import BadInput
from tasks.spec import Columns

LONGEST_SHOWN = 40  # characters; a longer word may be a patient's text and is never repeated
# Characters. A script without capitals writes a sentence in a few of them, often without spaces.
LONGEST_WITHOUT_CAPITALS = 4
# What may be a column's name: one word. A table without a header has a case in its first line.
COLUMN_NAME = re.compile(rf"[\w-]{{1,{LONGEST_SHOWN}}}")
MOST_DIGITS_OF_NAME = 4  # a year; a number of more digits may be a patient's


@dataclass(frozen=True)
class NamedColumn:
    """A column of the table, with the setting of a grid and the option of `triage data` for it."""

    name: str
    setting: str
    option: str
    may_be_empty: bool = False


def required_columns(columns: Columns) -> list[NamedColumn]:
    """The columns that every row must have."""
    required = [
        NamedColumn(columns.text_column, "text_column", "--text-column"),
        NamedColumn(columns.label_column, "label_column", "--label-column"),
    ]
    if columns.id_column:
        required.append(NamedColumn(columns.id_column, "id_column", "--id-column"))

    if columns.group_column:
        required.append(
            NamedColumn(columns.group_column, "group_column", "--group-column", may_be_empty=True)
        )

    return required


def optional_columns(columns: Columns) -> list[NamedColumn]:
    """The columns that a row may lack, but not all rows of a file."""
    optional = [
        NamedColumn(name, "one of subgroup_columns", "", may_be_empty=True)
        for name in columns.subgroup_columns
    ]
    if columns.rationale_column:
        optional.append(
            NamedColumn(
                columns.rationale_column,
                "rationale_column",
                "--rationale-column",
                may_be_empty=True,
            )
        )

    return optional


def missing_columns(
    location: str, header: Iterable[str], missing: Sequence[NamedColumn]
) -> BadInput:
    """The error for a row or a header at the place `location` that lacks the columns `missing`."""
    names = listed([f"'{column.name}'" for column in missing])
    settings = listed([_setting(column) for column in missing])
    header_names = ", ".join(shown_name(name) for name in header) or "none"
    columns, right = ("column", "one") if len(missing) == 1 else ("columns", "ones")

    return BadInput(
        f"{location}: has no {columns} {names}; its columns are {header_names}; name the right "
        f"{right} as {settings}{_addition(missing)}."
    )


def _setting(column: NamedColumn) -> str:
    return f"{column.setting} ({column.option})" if column.option else column.setting


def _addition(missing: Sequence[NamedColumn]) -> str:
    """The other remedy: a column that may be empty can be added to the table."""
    addable = [column for column in missing if column.may_be_empty]
    if not addable:
        return ""

    names = "it" if len(missing) == 1 else listed([f"'{column.name}'" for column in addable])
    return f", or add {names} (null where a case has none)"


def listed(parts: Sequence[str]) -> str:
    """The parts as one phrase: `a`, `a and b`, `a, b and c`."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def shown(word: str) -> str:
    """A word in quotes; of a long one, which may be a patient's text, the length alone."""
    return repr(word) if len(word) <= LONGEST_SHOWN else length_of(word)


def shown_name(name: str) -> str:
    """A column's name in quotes; the length alone of what may be a patient's words or number."""
    return repr(name) if looks_like_name(name) else length_of(name)


def looks_like_name(name: str) -> bool:
    """Whether it is one word of letters, digits, _ and -, as names of columns mostly are."""
    digits = sum(sign.isdigit() for sign in name)
    if not COLUMN_NAME.fullmatch(name) or digits > MOST_DIGITS_OF_NAME:
        return False
    return has_capitals(name) or len(name) <= LONGEST_WITHOUT_CAPITALS


def has_capitals(word: str) -> bool:
    """Whether the scripts of a word have capitals, so that it writes words with spaces."""
    return all(unicodedata.category(sign) not in ("Lo", "Mn", "Mc") for sign in word)


def length_of(word: str) -> str:
    """What stands for a word that is not shown."""
    return f"of {len(word)} characters"
