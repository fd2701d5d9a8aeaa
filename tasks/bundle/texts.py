"""Texts that a model is asked about: what is refused, and those of a user's file. No text is ever
repeated in an error.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from tasks.corpus.case import can_be_encoded, is_blank, text_digest
from tasks.corpus.reading.rows import RowReader
from tasks.corpus.reading.tables import place, read_rows
from tasks.runtime.errors import BadInput
from tasks.spec import Columns

MOST_BYTES = 1_000_000  # of one text in UTF-8: three times 50,000 English words


def checked_text(text: str) -> str:
    """The text without space around it. Raises BadInput where a model cannot be asked about it."""
    text = text.strip()
    if "\0" in text or not can_be_encoded(text):
        raise BadInput("The text holds NUL or half a surrogate pair; remove them.")
    if is_blank(text):
        raise BadInput("The text is empty; write what the patient says.")
    if len(text.encode()) > MOST_BYTES:
        raise _too_large()
    return text


def decoded_text(data: bytes) -> str:
    """A checked text from bytes in UTF-8, with or without a byte order mark; they may be the first
    MOST_BYTES + 4 of a larger text, which is refused.
    """
    if len(data) > MOST_BYTES + len(codecs.BOM_UTF8):
        raise _too_large()
    try:
        return checked_text(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"The text is not UTF-8 at byte {error.start + 1}; convert it.") from error


def _too_large() -> BadInput:
    return BadInput(f"The text is larger than {MOST_BYTES // 1_000_000} MB; shorten it.")


def numbered_texts(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """(case id, text) of each row of a .jsonl, .csv or .parquet file, one row in memory at a time.

    Without a column `case_id` or `id` a case is known by the digest of its text. Raises BadInput
    for a row that cannot be used, and for a file without rows.
    """
    reader = RowReader.of(Columns(text_column=column))
    empty = True
    for number, row in read_rows(path):
        empty = False
        location = place(path, number)
        if column not in row:
            is_csv = path.suffix.lower() == ".csv"
            header = ", and give a file without a header one" if is_csv else ""
            raise BadInput(
                f"{location}: has no column '{column}' among its {len(row)}; name the column of the "
                f"texts with --text-column{header}."
            )
        text = reader.text(row, location)
        if len(text.encode()) > MOST_BYTES:
            raise BadInput(f"{location}: '{column}' is longer than {MOST_BYTES // 1_000_000} MB.")
        yield reader.case_id(row, location) or f"text-{text_digest(text)}", text

    if empty:
        raise BadInput(f"{path} holds no texts; it needs rows with '{column}'.")
