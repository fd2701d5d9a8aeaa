"""Rows out of JSONL, CSV and Parquet files, each with the place to name in an error. What a row means is `readers`' part."""

from __future__ import annotations

import csv
import json
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks.runtime.errors import BadInput

Row = tuple[int, dict[str, Any]]
"""A line number (row number for Parquet), counted from 1, and the values by column name."""

csv.field_size_limit(
    1 << 28
)  # the default refuses a long letter; a whole file of it is still refused by `strict`


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file in order. Raises BadInput, in one sentence, for anything that is not a table we can read."""
    kind = path.suffix.lower()
    if kind not in READERS:
        known = ", ".join(READERS)
        raise BadInput(
            f"{path} ends in '{kind or path.name}'; give a file of one of these kinds: {known}."
        )
    check_readable(path)
    return READERS[kind](path)


def place(path: Path, number: int) -> str:
    """Where a row stands, as a user would look for it."""
    return f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}"


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
    if start[:2] == b"\x1f\x8b":
        raise BadInput(f"{path} is compressed with gzip; unpack it first, for example with gunzip.")
    if start[:4] == b"PK\x03\x04":
        raise BadInput(
            f"{path} is a zip file or an Excel workbook; unpack it or save it as 'CSV UTF-8'."
        )
    if not start:
        raise BadInput(f"{path} is empty; it needs at least one case.")


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, decoded one by one so that an error can name the line; a leading BOM is dropped."""
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            if b"\0" in raw:
                raise BadInput(
                    f"{place(path, number)}: holds NUL bytes, so it is not plain text; save the file as UTF-8."
                )
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                where = place(path, number)
                raise BadInput(
                    f"{where}: is not UTF-8 at byte {error.start + 1}; save the file as UTF-8."
                ) from error


class _Twice(ValueError):
    """A key that stands twice in one JSON object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; by itself Python would keep the last value and drop the others."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(_first_twice(names))
    return found


def _first_twice(names: list[str]) -> str:
    """The first name, in order of the alphabet, that stands twice; a long one may be a patient's text and is not shown."""
    name = min(name for name, count in Counter(names).items() if count > 1)
    return repr(name) if len(name) <= 40 else f"of {len(name)} characters"


DECODE = json.JSONDecoder(object_pairs_hook=_once).decode


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in _text_lines(path):
        if not line.strip():
            continue
        try:
            value = DECODE(line)
        except _Twice as error:
            raise BadInput(
                f"{place(path, number)}: has the key {error} twice; keep one of the two."
            ) from error
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "too deeply nested or too large a number")
            raise BadInput(
                f"{place(path, number)}: is not JSON ({reason}); write one JSON object on each line."
            ) from error
        if not isinstance(value, dict):
            raise BadInput(
                f'{place(path, number)}: is not a JSON object; write {{"text": ..., "label": ...}} on each line.'
            )
        yield number, value


def _csv(path: Path) -> Iterator[Row]:
    """Comma, semicolon (Excel in much of Europe) or tab; quoted fields may hold line breaks."""
    lines = (line for _, line in _text_lines(path))
    header_line = next(lines)
    if "\r" in header_line.rstrip(
        "\r\n"
    ):  # a line here ends with \n, so all lines of such a file are one
        raise BadInput(f'{path} has old Mac line ends; save it as "CSV UTF-8".')
    first = 1
    if header_line.lower().startswith("sep="):
        header_line, first = next(lines, ""), 2
    separator = max(",;\t", key=header_line.count)
    reader = csv.reader(_chain(header_line, lines), delimiter=separator, strict=True)
    header: list[str] | None = None
    line = first
    try:
        for values in reader:
            number, line = line, first + reader.line_num
            if not values or not any(v.strip() for v in values):
                continue
            if header is None:
                header = _header(path, number, values)
                continue
            if len(values) != len(header):
                raise BadInput(
                    f"{place(path, number)}: has {len(values)} fields where the header has {len(header)}; "
                    f"put quotes around a text that holds '{separator}'."
                )
            yield number, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise BadInput(
            f"{place(path, line)}: is not valid CSV ({error}); check its quotation marks."
        ) from error


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(path: Path, number: int, values: list[str]) -> list[str]:
    names = [value.strip() for value in values]
    _check_header(place(path, number), names)
    return names


def _check_header(where: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise BadInput(
            f"{where}: has the column {_first_twice(names)} twice; give each column its own name."
        )


def _parquet(path: Path) -> Iterator[Row]:
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
            f"{place(path, number + 1)}: is not readable as Parquet ({reason}); write the file again."
        ) from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
