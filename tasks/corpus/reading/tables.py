"""Rows of JSONL, CSV and Parquet files, each with its number for errors; `rows.py` says what a row
means."""

from __future__ import annotations

import csv
import json
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks.runtime.errors import BadInput

NumberedRow = tuple[int, dict[str, Any]]
"""A line number (row number for Parquet), counted from 1, and the values by column name."""

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
    """Where a row stands, as a user would look for it."""
    return f"{place_prefix(path)}{number}"


def place_prefix(path: Path) -> str:
    """What the places of all rows of a file begin with; their number follows."""
    return f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} "


def check_readable(path: Path) -> None:
    """Refuse folders, missing, special, empty and compressed files with one sentence (BadInput)."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadInput(f"{path} is a folder where a file is expected; name the file inside it.")
        if not stat.S_ISREG(mode):
            raise BadInput(f"{path} is not a regular file; copy its content to a file first.")

        with path.open("rb") as handle:
            start = handle.read(4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{path} cannot be read ({reason}); check the path and its permissions."
        ) from error

    _check_start(path, start)


def _check_start(path: Path, start: bytes) -> None:
    """Refuse a file by its first four bytes."""
    if start[:2] == b"\x1f\x8b":
        raise BadInput(f"{path} is compressed with gzip; unpack it first, for example with gunzip.")
    if start[:4] == b"PK\x03\x04":
        raise BadInput(
            f"{path} is a zip file or an Excel workbook; unpack it or save it as 'CSV UTF-8'."
        )
    if not start:
        raise BadInput(f"{path} is empty; it needs at least one case.")


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without a leading byte order mark.

    They are decoded one by one, so that an error can name the line.
    """
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            if b"\0" in raw:
                raise BadInput(
                    f"{place(path, number)}: holds NUL bytes, so it is not plain text; save the "
                    "file as UTF-8."
                )

            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BadInput(
                    f"{place(path, number)}: is not UTF-8 at byte {error.start + 1}; save the file "
                    "as UTF-8."
                ) from error


class _RepeatedKey(ValueError):
    """A key that stands twice in one JSON object."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; the standard reader would drop all but the last value."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise _RepeatedKey(_first_repeated([name for name, _ in pairs]))
    return entries


def _first_repeated(names: list[str]) -> str:
    """The places of the first name that stands twice, e.g. `2 and 5`: in a file without a header
    the name itself would be a patient's text.
    """
    repeated = next(name for name, count in Counter(names).items() if count > 1)
    first, second, *_ = (place for place, name in enumerate(names, 1) if name == repeated)
    return f"{first} and {second}"


DECODE = json.JSONDecoder(object_pairs_hook=_unique_keys).decode


def _jsonl(path: Path) -> Iterator[NumberedRow]:
    for number, line in _text_lines(path):
        if not line.strip():
            continue

        value = _json_value(line, place(path, number))
        if not isinstance(value, dict):
            raise BadInput(
                f'{place(path, number)}: is not a JSON object; write {{"text": ..., "label": ...}} '
                "on each line."
            )

        yield number, value


def _json_value(line: str, location: str) -> object:
    try:
        return DECODE(line)
    except _RepeatedKey as error:
        raise BadInput(
            f"{location}: gives one name to the keys {error}; keep one of the two."
        ) from error
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "too deeply nested or too large a number")
        raise BadInput(
            f"{location}: is not JSON ({reason}); write one JSON object on each line."
        ) from error


def _csv(path: Path) -> Iterator[NumberedRow]:
    """Comma, semicolon (Excel in much of Europe) or tab; quoted fields may hold line breaks."""
    lines = (line for _, line in _text_lines(path))
    first_number, header_line = _header_line(path, lines)
    separator = max(",;\t", key=header_line.count)
    reader = csv.reader(_chain(header_line, lines), delimiter=separator, strict=True)

    header: list[str] | None = None
    line = first_number
    try:
        for values in reader:
            number = line
            line = first_number + reader.line_num
            if not any(value.strip() for value in values):
                continue

            if header is None:
                header = _header(path, number, values)
                continue

            if len(values) != len(header):
                location = place(path, number)
                raise BadInput(_other_length(location, len(values), len(header), separator))
            yield number, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise BadInput(
            f"{place(path, line)}: is not valid CSV ({error}); check its quotation marks."
        ) from error


def _other_length(location: str, fields: int, columns: int, separator: str) -> str:
    """The sentence for a row with more or fewer fields than the header."""
    if fields > columns:
        remedy = f"put quotes around a text that holds '{separator}'"
    else:
        remedy = f"write a value for each column, separated by '{separator}', even an empty one"
    counted = "1 field" if fields == 1 else f"{fields} fields"
    return f"{location}: has {counted} where the header has {columns}; {remedy}."


def _header_line(path: Path, lines: Iterator[str]) -> tuple[int, str]:
    """The number and the text of the header, which follows Excel's line `sep=;` if there is one."""
    line = next(lines)
    # A line here ends with \n, so an old Mac's file is one line.
    if "\r" in line.rstrip("\r\n"):
        raise BadInput(f'{path} has old Mac line ends; save it as "CSV UTF-8".')

    return (2, next(lines, "")) if line.lower().startswith("sep=") else (1, line)


def _chain(first: str, further_lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from further_lines


def _header(path: Path, number: int, values: list[str]) -> list[str]:
    names = [value.strip() for value in values]
    _check_header(place(path, number), names)
    return names


def _check_header(location: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise BadInput(
            f"{location}: gives one name to the columns {_first_repeated(names)}; give each column "
            "its own name."
        )


def _parquet(path: Path) -> Iterator[NumberedRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_header(str(path), file.schema_arrow.names)
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
