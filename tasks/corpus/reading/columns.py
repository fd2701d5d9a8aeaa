"""The columns that a user's table must have, and the error that names all missing ones at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.runtime.errors import BadInput
from tasks.spec import Columns

LONGEST_SHOWN = 40  # characters; a longer word may be a patient's text and is never repeated


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
    header_names = ", ".join(shown(name) for name in header) or "none"
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
    return repr(word) if len(word) <= LONGEST_SHOWN else f"of {len(word)} characters"
