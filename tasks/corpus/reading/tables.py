"""A user's files of cases (JSONL, CSV, TSV, Parquet), checked row by row: an error names every file and
line, and a remedy. `rows.py` says what a row means.
"""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tasks.corpus.case import Case, normal_text, several, text_digest, with_one_spelling
from tasks.corpus.reading.rows import Row, RowReader, missing_columns
from tasks.runtime.errors import BadInput
from tasks.spec import Columns, EvaluationSet, Label

LabelledRow = tuple[Path, int, Label]
"""A row by its file and number, and its label."""
NumberedRow = tuple[int, dict[str, Any]]
"""A line number (row number for Parquet), counted from 1, and the values by column name."""

MOST_LABEL_WORDS = 12  # unknown ones: a column with more is not one of labels
SAVE_AS_CSV = (
    "save a workbook's sheet as CSV, in Excel by File > Save As > CSV UTF-8 (Comma delimited), in "
    "Numbers by File > Export To > CSV"
)

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
            f"{', '.join(READERS)}; {SAVE_AS_CSV}."
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
            f"{path} is compressed (gzip, zip or an Excel workbook); unpack it; {SAVE_AS_CSV}."
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
    """Comma, semicolon (Excel in much of Europe) or tab (.tsv); quoted fields may hold line breaks."""
    lines = (line for _, line in _text_lines(path))
    first_number = 1
    header_line = next(lines)
    if header_line.lower().startswith("sep="):  # Excel's line before the header
        first_number = 2
        header_line = next(lines, "")

    separators = "\t" if path.suffix.lower() == ".tsv" else ",;\t"
    separator = max(separators, key=header_line.count)
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
                    f"{separator!r}, and put quotes around a text that holds it."
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
    ".tsv": _csv,
    ".parquet": _parquet,
}


def read_set(paths: Sequence[Path], columns: Columns) -> list[Case]:
    """The cases of the files of one set, read as one table; see `read_sets`."""
    return read_sets({"": paths}, columns)[""]


def read_sets(files: Mapping[str, Sequence[Path]], columns: Columns) -> dict[str, list[Case]]:
    """The cases of each set, whose files are read as one table.

    `columns` names columns and label words. Ids come from `columns.id_column`, else from a column
    `case_id` or `id`, else from the text's digest. Without `columns.group_column` a column `group`
    is used where there is one; a group of several spellings gets one. Exact repeats within a file
    are kept once and logged. Raises BadInput, also for all contradictions and texts or ids in two
    files of a set, and for a file without a case.
    """
    sets: dict[str, list[Case]] = {name: [] for name in files}
    set_of = {path: name for name, paths in files.items() for path in paths}
    # The file, number and label of the first row of each text and each id of a set.
    texts: dict[tuple[str, str], LabelledRow] = {}
    ids: dict[tuple[str, str], LabelledRow] = {}
    wrong: dict[str, list[str]] = defaultdict(list)  # places and reasons, by the remedy
    duplicates = 0

    for path, number, case in numbered_cases(set_of, columns):
        name = set_of[path]
        here = (path, number, case.label)
        location = place(path, number)
        same_text = texts.setdefault((name, text_digest(case.text)), here)
        first = place(*same_text[:2])
        # Without an id column a repeated row's id is not used.
        has_id = columns.id_column or same_text is here
        same_id = ids.setdefault((name, case.case_id), here) if has_id else here
        if same_id is not here:
            remedy = "give each case its own id, or delete one of the two rows"
            wrong[remedy].append(f"{location}: has the id of {place(*same_id[:2])}")
        elif same_text is here:
            sets[name].append(case)
        elif same_text[2] != case.label:
            said = f"is labelled {case.label}, but {first} has the same text as {same_text[2]}"
            wrong["correct one of the two rows"].append(f"{location}: {said}")
        elif same_text[0] != path:
            wrong["delete one of the two rows"].append(f"{location}: has the same text as {first}")
        else:
            duplicates += 1

    if wrong:
        raise BadInput(" ".join(f"{several(found)}; {remedy}." for remedy, found in wrong.items()))
    if duplicates:
        log.warning("%s: %d repeated rows were left out", next(iter(set_of)), duplicates)
    return {name: with_one_spelling(cases) for name, cases in sets.items()}


def numbered_cases(paths: Iterable[Path], columns: Columns) -> Iterator[tuple[Path, int, Case]]:
    """The case of each row of the files, with the file and the row's number.

    Raises BadInput: at once for a file without a row and for a column that a row, or all of them,
    lacks; at the end for all rows that are no cases.
    """
    reader = RowReader(columns)
    wrong: dict[tuple[Path, str], list[int]] = defaultdict(list)  # rows by file and reason

    for path in paths:
        absent = reader.optional  # so far
        start = place_prefix(path)
        first: tuple[str, Row] | None = None
        for number, row in read_rows(path):
            missing = [column for column in reader.required if column[0] not in row]
            if first is None:
                first = (f"{start}{number}", row)
                is_case = any(normal_text(name) in reader.words for name in row)
                if path.suffix.lower() in (".csv", ".tsv") and is_case and missing:
                    raise BadInput(
                        f"{place(path, 1)}: holds a label, so that it seems to be a case and no header; "
                        "write a line with the names of the columns above it, such as "
                        f"{columns.text_column},{columns.label_column}."
                    )
            if missing:
                is_header = len(missing) < len(reader.required)
                raise missing_columns(f"{start}{number}", row, missing, is_header)

            absent = [column for column in absent if column[0] not in row]
            try:
                case = reader.case(row)
            except BadInput as error:
                wrong[path, str(error)].append(number)
            else:
                yield path, number, case

        if first is None:
            raise no_cases(path, columns)
        if absent:
            raise missing_columns(*first, absent, is_header=True)

    if wrong:
        sentences = []
        for (path, reason), numbers in wrong.items():
            more = f" (also {several(numbers[1:])})" if numbers[1:] else ""
            sentences.append(f"{place(path, numbers[0])}{more}: {reason}")
        labels = f" {_unknown_labels(reader.unknown, columns)}" if reader.unknown else ""
        raise BadInput(f"{several(sentences, ' ').removesuffix('.')}.{labels}")


def no_cases(source: Path | str, columns: Columns) -> BadInput:
    """The error for a source without a single row."""
    return BadInput(
        f"{source} holds no cases; it needs rows with '{columns.text_column}' and "
        f"'{columns.label_column}'."
    )


def _unknown_labels(counts: Counter[str], columns: Columns) -> str:
    """What to do about label words in so many rows, with one line of TOML for all of them."""
    if len(counts) > MOST_LABEL_WORDS:
        return (
            f"Unknown in '{columns.label_column}' are {len(counts):,} words, which are not shown since "
            "so many may be names; name the right column as label_column (--label-column)."
        )
    shown = ", ".join(f"{word!r} ({count})" for word, count in counts.most_common())
    # "?" is no label, so that a word that is left as it is gets no wrong one.
    words = dict.fromkeys((word for word, _ in counts.most_common()), "?")
    # TOML has no surrogate pairs, so that other characters stand for themselves.
    meanings = {
        json.dumps(word, ensure_ascii=False): of for word, of in (columns.labels | words).items()
    }
    entries = ", ".join(f'{word} = "{label}"' for word, label in meanings.items())
    table = "[[evaluation_set]]" if isinstance(columns, EvaluationSet) else "[data]"
    return (
        f"Unknown in '{columns.label_column}', with their rows: {shown}; correct them, or write in "
        f"{table}, with ED, GP or HOME for each ?: labels = {{ {entries} }} (without a "
        "grid: --label WORD=ED for each)."
    )
