"""A user's files of cases (JSONL, CSV, Parquet), checked row by row: every error is one sentence that
names the file, the line and a remedy. `rows.py` says what a row means.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tasks.corpus.case import Case, normal_text, text_digest, with_one_spelling
from tasks.corpus.reading.rows import Row, RowReader, missing_columns
from tasks.runtime.errors import BadInput
from tasks.spec import Columns, Label

LabelledRow = tuple[Path, int, Label]
"""A row by its file and number, and its label."""
NumberedRow = tuple[int, dict[str, Any]]
"""A line number (row number for Parquet), counted from 1, and the values by column name."""

log = logging.getLogger(__name__)
# The default refuses a long letter. A quote that is never closed, and so makes one field of the
# rest of the file, is still refused by `strict`.
csv.field_size_limit(1 << 28)


def read_rows(path: Path) -> Iterator[NumberedRow]:
    """The rows of a file in order. Raises BadInput for anything but a table of a known kind."""
    kind = path.suffix.lower()
    if kind not in READERS:
        raise BadInput(
            f"{path} ends in '{kind or path.name}'; give a file of one of these kinds: "
            f"{', '.join(READERS)}."
        )

    check_readable(path)
    return READERS[kind](path)


def place(path: Path, number: int) -> str:
    """The place of a row, as a user would look for it."""
    return f"{place_prefix(path)}{number}"


def place_prefix(path: Path) -> str:
    """What the places of all rows of a file begin with; their number follows."""
    return f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} "


def check_readable(path: Path) -> None:
    """Refuse folders, missing, special, empty and compressed files with one sentence (BadInput)."""
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is a folder or device where a file is expected; name the file.")
        with path.open("rb") as handle:
            start = handle.read(4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{path} cannot be read ({reason}); check the path and its permissions."
        ) from error

    if start.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise BadInput(
            f"{path} is compressed (gzip, zip or an Excel workbook); unpack it or save it as "
            "'CSV UTF-8'."
        )
    if not start:
        raise BadInput(f"{path} is empty; it needs at least one case.")


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without a byte order mark; decoded one by one, for the error."""
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                text = "\0"
            if "\0" in text:
                raise BadInput(
                    f"{place(path, number)}: is no text in UTF-8; save the file as UTF-8."
                )
            yield number, text


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; the standard reader would keep the last value."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("one key twice")
    return entries


DECODE = json.JSONDecoder(object_pairs_hook=_unique_keys).decode


def _jsonl(path: Path) -> Iterator[NumberedRow]:
    for number, line in _text_lines(path):
        if not line.strip():
            continue

        location = place(path, number)
        try:
            value = DECODE(line)
        except (ValueError, RecursionError) as error:
            # The text of other errors may be long.
            reason = getattr(error, "msg", "one key twice, too deeply nested or too large a number")
            raise BadInput(
                f"{location}: is not JSON ({reason}); write one JSON object on each line."
            ) from error
        if not isinstance(value, dict):
            raise BadInput(
                f'{location}: is not a JSON object; write {{"text": ..., "label": ...}} '
                "on each line."
            )

        yield number, value


def _csv(path: Path) -> Iterator[NumberedRow]:
    """Comma, semicolon (Excel in much of Europe) or tab; quoted fields may hold line breaks."""
    lines = (line for _, line in _text_lines(path))
    first_number = 1
    header_line = next(lines)
    if header_line.lower().startswith("sep="):  # Excel's line before the header
        first_number = 2
        header_line = next(lines, "")

    separator = max(",;\t", key=header_line.count)
    reader = csv.reader(chain([header_line], lines), delimiter=separator, strict=True)

    header: list[str] | None = None
    line = first_number
    try:
        for values in reader:
            number = line
            line = first_number + reader.line_num
            if not any(value.strip() for value in values):
                continue

            if header is None:
                header = [value.strip() for value in values]
                _refuse_repeated(place(path, number), header)
                continue

            if len(values) != len(header):
                raise BadInput(
                    f"{place(path, number)}: has another number of fields ({len(values)}) than the "
                    f"header ({len(header)}); write a value for each column, separated by "
                    f"'{separator}', and put quotes around a text that holds it."
                )
            yield number, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise BadInput(
            f"{place(path, line)}: is not valid CSV ({error}); check its quotation marks."
        ) from error


def _refuse_repeated(location: str, names: list[str]) -> None:
    # In a file without a header a name would be a patient's text, so that none is shown.
    if len(set(names)) < len(names):
        raise BadInput(
            f"{location}: gives one name to two of its {len(names)} columns; give each its own name."
        )


def _parquet(path: Path) -> Iterator[NumberedRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _refuse_repeated(str(path), file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadInput(
            f"{place(path, number + 1)}: is not readable as Parquet ({reason}); write the file "
            "again."
        ) from error


READERS: dict[str, Callable[[Path], Iterator[NumberedRow]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def read_set(paths: Sequence[Path], columns: Columns) -> list[Case]:
    """The cases of the .jsonl, .csv or .parquet files of one set, read as one table.

    `columns` names columns and label words. Ids come from `columns.id_column`, else from a column
    `case_id` or `id`, else from the text's digest. Without `columns.group_column` a column `group`
    is used where there is one; a group of several spellings gets one. Exact repeats within a file
    are kept once and logged. Raises BadInput, also for a contradiction, a text or id in two files,
    and a file without a case.
    """
    cases: list[Case] = []
    # The file, number and label of the first row of each text and each id.
    texts: dict[str, LabelledRow] = {}
    ids: dict[str, LabelledRow] = {}
    duplicates = 0

    entries = ((path, *entry) for path in paths for entry in numbered_cases(path, columns))
    for path, number, case in entries:
        here = (path, number, case.label)
        location = place(path, number)
        same_text = texts.setdefault(text_digest(case.text), here)
        # Without an id column a repeated row's id is not used.
        if columns.id_column or same_text is here:
            same_id = ids.setdefault(case.case_id, here)
            if same_id is not here:
                raise BadInput(
                    f"{location}: has the id of {place(*same_id[:2])}; give each case its own id, "
                    "or delete one of the two rows."
                )
        if same_text is here:
            cases.append(case)
            continue

        first = place(*same_text[:2])
        if same_text[2] != case.label:
            raise BadInput(
                f"{location}: is labelled {case.label}, but {first} has the same text as "
                f"{same_text[2]}; correct one of the two rows."
            )
        if same_text[0] != path:
            raise BadInput(f"{location}: has the same text as {first}; delete one of the two rows.")
        duplicates += 1

    if duplicates:
        log.warning("%s: %d repeated rows were left out", paths[0], duplicates)
    return with_one_spelling(cases)


def numbered_cases(path: Path, columns: Columns) -> Iterator[tuple[int, Case]]:
    """The case of each row of a file, with the row's number.

    Raises BadInput, also for a file without a row, and for a column that every row lacks.
    """
    reader = RowReader(columns)
    absent = reader.optional  # so far
    start = place_prefix(path)
    first: tuple[str, Row] | None = None

    for number, row in read_rows(path):
        location = f"{start}{number}"
        if first is None:
            first = (location, row)
            has_all = all(name in row for name, _ in reader.required)
            is_case = any(normal_text(name) in reader.words for name in row)
            if path.suffix.lower() == ".csv" and is_case and not has_all:
                raise BadInput(
                    f"{place(path, 1)}: holds a label, so that it seems to be a case and no header; "
                    "write a line with the names of the columns above it, such as "
                    f"{columns.text_column},{columns.label_column}."
                )
        absent = [column for column in absent if column[0] not in row]
        yield number, reader.case(row, location)

    if first is None:
        raise no_cases(path, columns)
    if absent:
        raise missing_columns(*first, absent)


def no_cases(source: Path | str, columns: Columns) -> BadInput:
    """The error for a source without a single row."""
    return BadInput(
        f"{source} holds no cases; it needs rows with '{columns.text_column}' and "
        f"'{columns.label_column}'."
    )
