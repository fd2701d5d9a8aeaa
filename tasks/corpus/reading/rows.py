"""One row of a user's table as a case; every error names the place, the reason and the remedy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tasks.corpus.case import Case, can_be_encoded, is_blank, normal_text, text_digest
from tasks.corpus.reading.columns import NamedColumn, missing_columns, required_columns
from tasks.corpus.reading.label_words import label_words, unknown_label, without_zero_decimals
from tasks.runtime.errors import BadInput
from tasks.spec import Columns, Label

Row = dict[str, Any]
"""The values of a row by column name, of any type that a file can hold."""

ID_COLUMNS = ("case_id", "id")
# Characters. Reports show a subgroup's name, and a patient's text must not come into them.
LONGEST_SUBGROUP = 100


@dataclass(frozen=True)
class RowReader:
    """Turns rows into cases. `words`: the label of each accepted word, see `label_words`."""

    columns: Columns
    words: dict[str, Label]
    required: tuple[NamedColumn, ...]

    @classmethod
    def of(cls, columns: Columns) -> RowReader:
        """The reader of these columns. Raises BadInput for contradicting label words."""
        return cls(columns, label_words(columns), tuple(required_columns(columns)))

    def case(self, row: Row, location: str) -> Case:
        """The case of a row. `location`: its place, for the error. Raises BadInput."""
        self._check_columns(row, location)
        text = self.text(row, location)

        return Case(
            case_id=self.case_id(row, location) or f"text-{text_digest(text)}",
            text=text,
            label=self._label(row[self.columns.label_column], location),
            group=self._group(row, location),
            subgroup=self._subgroup(row, location) if self.columns.subgroup_columns else {},
            rationale=self._rationale(row, location),
        )

    def _check_columns(self, row: Row, location: str) -> None:
        missing = [column for column in self.required if column.name not in row]
        if missing:
            raise missing_columns(location, row, missing)

    def text(self, row: Row, location: str) -> str:
        """The text of a row, without space around it."""
        column = self.columns.text_column
        value = row[column]
        if not isinstance(value, str):
            raise BadInput(
                f"{location}: '{column}' is not a text but {_kind(value)}; write it as one string."
            )

        text = _checked(value.strip(), location)
        if is_blank(text):
            raise BadInput(f"{location}: '{column}' is empty; fill it in or delete the row.")

        return text

    def case_id(self, row: Row, location: str) -> str:
        """The row's id, or an empty text where the user names no id column and the row has none."""
        column = self.columns.id_column
        if column is None:
            names = (name for name in ID_COLUMNS if row.get(name) is not None)
            return next((_scalar(row[name], name, location) for name in names), "")

        case_id = _scalar(row[column], column, location) if row[column] is not None else ""
        if not case_id:
            raise BadInput(
                f"{location}: '{column}' is empty; give each case its own id, or leave id_column "
                "(--id-column) out."
            )

        return case_id

    def _group(self, row: Row, location: str) -> str | None:
        column = self.columns.group_column or "group"
        value = row.get(column)
        if value is None:
            return None

        return without_zero_decimals(_scalar(value, column, location)) or None

    def _rationale(self, row: Row, location: str) -> str | None:
        column = self.columns.rationale_column
        if not column or row.get(column) is None:
            return None
        return _scalar(row[column], column, location) or None

    def _subgroup(self, row: Row, location: str) -> dict[str, str]:
        """The row's value in each subgroup column in which it has one."""
        subgroup = {}
        for column in self.columns.subgroup_columns:
            if row.get(column) is None:
                continue
            if name := without_zero_decimals(_scalar(row[column], column, location)):
                subgroup[column] = name

        for column, name in subgroup.items():
            if len(name) > LONGEST_SUBGROUP:
                raise BadInput(
                    f"{location}: '{column}' holds {len(name)} characters, too many for a "
                    f"subgroup's name; write at most {LONGEST_SUBGROUP}, or remove it from "
                    "subgroup_columns."
                )

        return subgroup

    def _label(self, value: object, location: str) -> Label:
        # Most labels are written exactly as a known word; nothing has to be tidied up then.
        if isinstance(value, str) and (exact := self.words.get(value)):
            return exact

        column = self.columns.label_column
        word = _scalar(value, column, location) if value is not None else ""
        label = self.words.get(normal_text(without_zero_decimals(word)))
        if label:
            return label

        if not word:
            raise BadInput(
                f"{location}: has no label; write ED, GP or HOME in '{column}', or delete the row."
            )

        raise unknown_label(word, column, location)


def _scalar(value: object, column: str, location: str) -> str:
    """Text of a short value: ids, groups and labels may be numbers; nested values are refused."""
    # NaN is how pandas writes a missing number; whole numbers become floats beside it.
    if isinstance(value, float) and math.isnan(value):
        return ""

    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (str, int, float)):
        return _checked(str(value).strip(), location)

    raise BadInput(f"{location}: '{column}' is {_kind(value)}; it must be a plain text or number.")


def _checked(text: str, location: str) -> str:
    if "\0" in text or not (text.isascii() or can_be_encoded(text)):
        raise BadInput(
            f"{location}: holds characters that are not valid text (NUL or half a surrogate pair); "
            "remove them."
        )
    return text


def _kind(value: object) -> str:
    """A value's type in plain words."""
    names = {
        dict: "a nested object",
        list: "a list",
        bool: "true or false",
        type(None): "missing",
        bytes: "bytes",
    }
    is_number = isinstance(value, (int, float))
    return names.get(type(value), "a number" if is_number else f"a {type(value).__name__}")
