"""A user's file of cases, checked row by row: every refusal is one sentence that names the file, the line and a remedy."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.corpus.case import Case, normal_text, text_digest
from tasks.corpus.tables import place, read_rows
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Columns, Label

ID_COLUMNS = ("case_id", "id")
LONGEST_SUBGROUP = (
    100  # characters: reports show its name, and a patient's text must not come into them
)
WHOLE = re.compile(r"(-?[0-9]+)\.0+")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reading:
    """The cases of the files of one set in order, and how many repeated rows were left out."""

    cases: list[Case] = field(default_factory=list)
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """Where a text or an id was met first, and with which label."""

    path: Path
    number: int
    label: Label

    def seen_from(self, path: Path) -> str:
        """The place; the file's name is left out where the reader is in that file anyway."""
        where = place(self.path, self.number)
        return where.removeprefix(f"{path}, ") if path == self.path else where


def read_cases(path: Path, data: Columns) -> list[Case]:
    """The cases of a .jsonl, .csv or .parquet file; exact repeats are kept once and counted in the log.

    Columns and label words are named by `data`; a column `case_id` or `id` gives the ids, else the text's digest does.
    Without `data.group_column` a column `group` is used where there is one. Raises BadInput.
    """
    return read_set([path], data)


def read_set(paths: Sequence[Path], data: Columns) -> list[Case]:
    """The cases of the files of one set, read as one table: see `read_cases`. A text or id in two files is refused."""
    reading = read_files(paths, data)
    if reading.duplicates:
        log.warning("%s: %d repeated rows were left out", paths[0], reading.duplicates)
    return reading.cases


def read_file(path: Path, data: Columns) -> Reading:
    """Like `read_cases`, with the number of repeated rows."""
    return read_files([path], data)


def read_files(paths: Sequence[Path], data: Columns) -> Reading:
    """Like `read_set`, with the number of repeated rows. Each file must hold a case."""
    reading = Reading()
    by_text: dict[str, Known] = {}
    by_id: dict[str, Known] = {}
    for path in paths:
        for number, case in numbered_cases(path, data):
            here = Known(path, number, case.label)
            known = by_text.setdefault(text_digest(case.text), here)
            if known is not here:
                _check_repeat(known, here)
                reading.duplicates += 1
                continue
            known = by_id.setdefault(case.case_id, here)
            if known is not here:
                first = known.seen_from(path)
                raise BadInput(
                    f"{place(path, number)}: has the id of {first} but another text; give each its own id."
                )
            reading.cases.append(case)
    return reading


def numbered_cases(path: Path, data: Columns) -> Iterator[tuple[int, Case]]:
    """The case of each row of a file, with the row's number.

    Raises BadInput, also for a file without a row, and for a column that a row may lack where every row lacks it.
    """
    words, start, lacking = label_words(data), place(path, 0).removesuffix("0"), _optional(data)
    first: tuple[str, dict[str, Any]] | None = None
    for number, row in read_rows(path):
        first = first or (f"{start}{number}", row)
        if lacking:
            lacking = {column: key for column, key in lacking.items() if column not in row}
        yield number, row_case(row, data, words, f"{start}{number}")
    if first is None:
        raise no_cases(path, data)
    for column, key in lacking.items():
        raise _no_column(*first, column, f"{key}, or add it (null where a case has none)")


def _optional(data: Columns) -> dict[str, str]:
    """The named columns that a row may lack, and what their setting is called."""
    found = dict.fromkeys(data.subgroup_columns, "one of subgroup_columns")
    return found | ({data.rationale_column: "rationale_column"} if data.rationale_column else {})


def no_cases(path: Path | str, data: Columns) -> BadInput:
    """The refusal of a source without a single row."""
    return BadInput(
        f"{path} holds no cases; it needs rows with '{data.text_column}' and '{data.label_column}'."
    )


def label_words(data: Columns) -> dict[str, Label]:
    """Every accepted label word as `normal_text`: the user's own first, then ED, GP and HOME; those also as written here.

    Raises BadInput where the user maps one word to two labels.
    """
    own: dict[str, tuple[str, Label]] = {}
    for word, label in data.labels.items():
        first = own.setdefault(normal_text(_plain(word)), (word, label))
        if first[1] != label:
            raise BadInput(
                f"[data.labels] maps {_shown(first[0])} to {first[1]} and {_shown(word)} to {label}, but case and spaces "
                "do not count, so they are one word; remove one of the two."
            )
    words = {normal_text(label): label for label in LABELS} | {
        word: label for word, (_, label) in own.items()
    }
    return words | {
        label: words[normal_text(label)] for label in LABELS
    }  # found as it is, which is fast


def row_case(row: dict[str, Any], data: Columns, words: dict[str, Label], where: str) -> Case:
    """The case of one row; `words` are `label_words(data)`, `where` the place that a refusal (BadInput) names."""
    text = _value(row, data.text_column, "text", where)
    if not isinstance(text, str):
        raise BadInput(
            f"{where}: '{data.text_column}' is not a text but {_kind(text)}; write it as one string."
        )
    text = _clean(text.strip(), where)
    if not text:
        raise BadInput(f"{where}: '{data.text_column}' is empty; fill it in or delete the row.")
    identifier = next(
        (_scalar(row[name], name, where) for name in ID_COLUMNS if row.get(name) is not None), ""
    )
    group_column = data.group_column or "group"
    group = (
        _value(row, group_column, "group", where) if data.group_column else row.get(group_column)
    )
    rationale = row.get(data.rationale_column) if data.rationale_column else None
    return Case(
        case_id=identifier or f"text-{text_digest(text)}",
        text=text,
        label=_label(_value(row, data.label_column, "label", where), data, words, where),
        group=(_plain(_scalar(group, group_column, where)) or None) if group is not None else None,
        subgroup=_subgroup(row, data, where) if data.subgroup_columns else {},
        rationale=(_scalar(rationale, str(data.rationale_column), where) or None)
        if rationale is not None
        else None,
    )


def _value(row: dict[str, Any], column: str, key: str, where: str) -> Any:
    if column not in row:
        added = ", or add it (null where a case has none)" if key == "group" else ""
        raise _no_column(where, row, column, f"{key}_column{added}")
    return row[column]


def _no_column(where: str, row: dict[str, Any], column: str, key: str) -> BadInput:
    has = ", ".join(_shown(name) for name in row) or "none"
    return BadInput(
        f"{where}: has no column '{column}'; its columns are {has}; name the right one as {key}."
    )


def _plain(name: str) -> str:
    """A group, subgroup or label word: 7.0 is 7, as pandas writes it where another row has none."""
    whole = WHOLE.fullmatch(name)
    return whole[1] if whole else name


def _subgroup(row: dict[str, Any], data: Columns, where: str) -> dict[str, str]:
    """The row's value in each subgroup column in which it has one."""
    given = {column: row[column] for column in data.subgroup_columns if row.get(column) is not None}
    found = {
        column: word
        for column, value in given.items()
        if (word := _plain(_scalar(value, column, where)))
    }
    for column, word in found.items():
        if len(word) > LONGEST_SUBGROUP:
            raise BadInput(
                f"{where}: '{column}' holds {len(word)} characters, and reports show what a subgroup is called; "
                f"write at most {LONGEST_SUBGROUP}, or remove it from subgroup_columns."
            )
    return found


def _label(value: Any, data: Columns, words: dict[str, Label], where: str) -> Label:
    if isinstance(value, str) and (
        known := words.get(value)
    ):  # written as we know it: nothing to tidy up
        return known
    word = _scalar(value, data.label_column, where) if value is not None else ""
    label = words.get(normal_text(_plain(word)))
    if label is None and not word:
        raise BadInput(
            f"{where}: has no label; write ED, GP or HOME in '{data.label_column}', or delete the row."
        )
    if label is None:
        example = f'{json.dumps(word)} = "ED"' if len(word) <= 40 else '"your word" = "ED"'
        raise BadInput(
            f"{where}: has the unknown label {_shown(word)}; use ED, GP or HOME, or map it under [data.labels]: {example}."
        )
    return label


def _scalar(value: Any, column: str, where: str) -> str:
    """Text of a short value: ids, groups and labels may be numbers; nested values are refused."""
    if isinstance(value, float) and math.isnan(value):  # NaN is how pandas writes a missing number
        return ""
    if isinstance(value, float) and value.is_integer():  # and whole numbers become floats beside it
        value = int(value)
    if isinstance(value, (str, int, float)):
        return _clean(str(value).strip(), where)
    raise BadInput(f"{where}: '{column}' is {_kind(value)}; it must be a plain text or number.")


def _clean(text: str, where: str) -> str:
    if "\0" in text or not (text.isascii() or _encodes(text)):
        raise BadInput(
            f"{where}: holds characters that are not valid text (NUL or half a surrogate pair); remove them."
        )
    return text


def _check_repeat(known: Known, here: Known) -> None:
    """A repeat in one file is left out; another label, or the same text in another file of the set, is refused."""
    where, first = place(here.path, here.number), known.seen_from(here.path)
    if known.label != here.label:
        raise BadInput(
            f"{where}: is labelled {here.label}, but {first} has the same text as {known.label}; "
            "correct one of the two rows."
        )
    if known.path != here.path:
        raise BadInput(f"{where}: has the same text as {first}; delete one of the two rows.")


def _encodes(text: str) -> bool:
    """Whether a text holds whole characters only; half a surrogate pair cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    names = {
        dict: "a nested object",
        list: "a list",
        bool: "true or false",
        type(None): "missing",
        bytes: "bytes",
    }
    return names.get(
        type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}"
    )


def _shown(word: str) -> str:
    """A short word as it is; a long one may be a patient's text and is never repeated."""
    return repr(word) if len(word) <= 40 else f"of {len(word)} characters"
