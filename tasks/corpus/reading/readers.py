"""A user's files of cases, checked row by row: every error is one sentence that names the file, the
line and a remedy."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.corpus.case import Case, normal_text, text_digest
from tasks.corpus.compared_forms import with_one_spelling
from tasks.corpus.reading.columns import missing_columns, optional_columns, required_columns
from tasks.corpus.reading.label_words import label_words
from tasks.corpus.reading.rows import Row, RowReader
from tasks.corpus.reading.tables import place, place_prefix, read_rows
from tasks.runtime.errors import BadInput
from tasks.spec import Columns, Label

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text or an id stands, and with which label."""

    path: Path
    number: int
    label: Label

    def __str__(self) -> str:
        return place(self.path, self.number)

    def seen_from(self, path: Path) -> str:
        """The place; the file's name is left out where the error names that file anyway."""
        return str(self).removeprefix(f"{path}, ") if path == self.path else str(self)


@dataclass(slots=True)
class Reading:
    """The cases of the files of one set in order, and how many repeated rows were left out."""

    columns: Columns
    cases: list[Case] = field(default_factory=list)
    duplicates: int = 0
    texts: dict[str, Place] = field(default_factory=dict)
    ids: dict[str, Place] = field(default_factory=dict)

    def add(self, case: Case, case_place: Place) -> None:
        """Add a case unless its text is there already. Raises BadInput for a contradiction."""
        if self.columns.id_column:
            self._check_id_column(case, case_place)

        same_text = self.texts.setdefault(text_digest(case.text), case_place)
        if same_text is not case_place:
            _check_repeat(same_text, case_place)
            self.duplicates += 1
            return

        same_id = self.ids.setdefault(case.case_id, case_place)
        if same_id is not case_place:
            raise BadInput(
                f"{case_place}: has the id of {same_id.seen_from(case_place.path)} but another "
                "text; give each its own id."
            )

        self.cases.append(case)

    def _check_id_column(self, case: Case, case_place: Place) -> None:
        """Refuse a second row with the same id where the user names the id column."""
        first = self.ids.setdefault(case.case_id, case_place)
        if first is not case_place:
            raise BadInput(
                f"{case_place}: has the id of {first.seen_from(case_place.path)} in "
                f"'{self.columns.id_column}'; give each case its own id, or delete one of the two "
                "rows."
            )


def read_cases(path: Path, columns: Columns) -> list[Case]:
    """The cases of a .jsonl, .csv or .parquet file; exact repeats are kept once and logged.

    `columns` names columns and label words. Ids come from `columns.id_column`, else from a column
    `case_id` or `id`, else from the text's digest. Without `columns.group_column` a column `group`
    is used where there is one; a group of several spellings gets one. Raises BadInput.
    """
    return read_set([path], columns)


def read_set(paths: Sequence[Path], columns: Columns) -> list[Case]:
    """The cases of the files of one set, read as one table: see `read_cases`.

    A text or id in two files is refused.
    """
    reading = read_files(paths, columns)
    if reading.duplicates:
        log.warning("%s: %d repeated rows were left out", paths[0], reading.duplicates)
    return reading.cases


def read_files(paths: Sequence[Path], columns: Columns) -> Reading:
    """Like `read_set`, with the number of repeated rows. Each file must hold a case."""
    reading = Reading(columns)
    for path in paths:
        for number, case in numbered_cases(path, columns):
            reading.add(case, Place(path, number, case.label))

    reading.cases = with_one_spelling(reading.cases)
    return reading


def _check_repeat(first: Place, case_place: Place) -> None:
    """Refuse a repeated text with another label, or in another file of the set."""
    first_place = first.seen_from(case_place.path)
    if first.label != case_place.label:
        raise BadInput(
            f"{case_place}: is labelled {case_place.label}, but {first_place} has the same text as "
            f"{first.label}; correct one of the two rows."
        )

    if first.path != case_place.path:
        raise BadInput(
            f"{case_place}: has the same text as {first_place}; delete one of the two rows."
        )


def numbered_cases(path: Path, columns: Columns) -> Iterator[tuple[int, Case]]:
    """The case of each row of a file, with the row's number.

    Raises BadInput, also for a file without a row, and for a column that a row may lack where every
    row lacks it.
    """
    reader = RowReader.of(columns)
    absent = optional_columns(columns)  # so far: they may begin in any row of a JSONL file
    start = place_prefix(path)
    first: tuple[str, Row] | None = None

    for number, row in read_rows(path):
        if first is None:
            first = (f"{start}{number}", row)
            _check_header(path, columns, *first)
        if absent:
            absent = [column for column in absent if column.name not in row]
        yield number, reader.case(row, f"{start}{number}")

    if first is None:
        raise no_cases(path, columns)
    if absent:
        raise missing_columns(*first, absent)


def _check_header(path: Path, columns: Columns, location: str, row: Row) -> None:
    """Name all columns that the header lacks at once. `row`: the
    first one, at the place `location`.

    In a JSONL file an optional column may begin further down.
    """
    expected_columns = required_columns(columns)
    if path.suffix.lower() != ".jsonl":
        expected_columns += optional_columns(columns)

    missing = [column for column in expected_columns if column.name not in row]
    if missing:
        _check_first_line(path, columns, row)
        raise missing_columns(location, row, missing)


def _check_first_line(path: Path, columns: Columns, row: Row) -> None:
    """Refuse a CSV file without a header, whose first line is a case: its text is not repeated."""
    words = label_words(columns)
    if path.suffix.lower() == ".csv" and any(normal_text(name) in words for name in row):
        raise BadInput(
            f"{place(path, 1)}: holds a label, so that it seems to be a case and no header; write "
            f"a line with the names of the columns above it, such as {columns.text_column},"
            f"{columns.label_column}."
        )


def no_cases(source: Path | str, columns: Columns) -> BadInput:
    """The error for a source without a single row."""
    return BadInput(
        f"{source} holds no cases; it needs rows with '{columns.text_column}' and "
        f"'{columns.label_column}'."
    )
