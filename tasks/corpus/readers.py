"""A user's file of cases, checked row by row: every refusal is one sentence that names the file, the line and a remedy."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.corpus.case import Case, normal_text, text_digest
from tasks.corpus.tables import place, read_rows
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Columns, Label

ID_COLUMNS = ("case_id", "id")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reading:
    """The cases of one file in file order, and how many repeated rows were left out."""

    cases: list[Case] = field(default_factory=list)
    duplicates: int = 0


def read_cases(path: Path, data: Columns) -> list[Case]:
    """The cases of a .jsonl, .csv or .parquet file; exact repeats are kept once and counted in the log.

    Columns and label words are named by `data`; a column `case_id` or `id` gives the ids, else the text's digest does.
    Without `data.group_column` a column `group` is used where there is one. Raises BadInput.
    """
    reading = read_file(path, data)
    if reading.duplicates:
        log.warning("%s: %d repeated rows were left out", path, reading.duplicates)
    return reading.cases


def read_file(path: Path, data: Columns) -> Reading:
    """Like `read_cases`, with the number of repeated rows."""
    reading = Reading()
    words = label_words(data)
    by_text: dict[str, tuple[int, Label, str]] = {}
    by_id: dict[str, int] = {}
    for number, row in read_rows(path):
        where = place(path, number)
        case = row_case(row, data, words, where)
        known = by_text.setdefault(text_digest(case.text), (number, case.label, _number_only(path, where)))
        if known[0] != number:
            _check_same_label(known, case, where)
            reading.duplicates += 1
            continue
        if by_id.setdefault(case.case_id, number) != number:
            first = _number_only(path, place(path, by_id[case.case_id]))
            raise BadInput(f"{where}: has the id of {first} but another text; give each its own id.")
        reading.cases.append(case)
    if not reading.cases:
        raise BadInput(f"{path} holds no cases; it needs rows with '{data.text_column}' and '{data.label_column}'.")
    return reading


def label_words(data: Columns) -> dict[str, Label]:
    """Every accepted label word, without case and outer space: the user's own, then ED, GP and HOME themselves."""
    words: dict[str, Label] = {label.casefold(): label for label in LABELS}
    words.update({normal_text(word): label for word, label in data.labels.items()})
    return words


def row_case(row: dict[str, Any], data: Columns, words: dict[str, Label], where: str) -> Case:
    """The case of one row; `words` are `label_words(data)`, `where` the place that a refusal (BadInput) names."""
    text = _value(row, data.text_column, "text", where)
    if not isinstance(text, str):
        raise BadInput(f"{where}: '{data.text_column}' is not a text but {_kind(text)}; write it as one string.")
    text = text.strip()
    if not text:
        raise BadInput(f"{where}: '{data.text_column}' is empty; fill it in or delete the row.")
    identifier = next((_scalar(row[name], name, where) for name in ID_COLUMNS if row.get(name) is not None), "")
    group_column = data.group_column or "group"
    group = _value(row, group_column, "group", where) if data.group_column else row.get(group_column)
    rationale = _value(row, data.rationale_column, "rationale", where) if data.rationale_column else None
    return Case(
        case_id=identifier or f"text-{text_digest(_clean(text, where))}",
        text=_clean(text, where),
        label=_label(_value(row, data.label_column, "label", where), data, words, where),
        group=(_scalar(group, group_column, where) or None) if group is not None else None,
        rationale=(_scalar(rationale, str(data.rationale_column), where) or None) if rationale is not None else None,
    )


def _value(row: dict[str, Any], column: str, key: str, where: str) -> Any:
    if column not in row:
        has = ", ".join(_shown(name) for name in row) or "none"
        raise BadInput(f"{where}: has no column '{column}'; its columns are {has}; name the right one as {key}_column.")
    return row[column]


def _label(value: Any, data: Columns, words: dict[str, Label], where: str) -> Label:
    word = _scalar(value, data.label_column, where) if value is not None else ""
    label = words.get(normal_text(word))
    if label is None and not word:
        raise BadInput(f"{where}: has no label; write ED, GP or HOME in '{data.label_column}', or delete the row.")
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
    if isinstance(value, (str, int, float)):
        return _clean(str(value).strip(), where)
    raise BadInput(f"{where}: '{column}' is {_kind(value)}; it must be a plain text or number.")


def _clean(text: str, where: str) -> str:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise BadInput(
            f"{where}: holds characters that are not valid text (NUL or half a surrogate pair); remove them."
        )
    return text


def _check_same_label(known: tuple[int, Label, str], case: Case, where: str) -> None:
    if known[1] != case.label:
        raise BadInput(
            f"{where}: is labelled {case.label}, but {known[2]} has the same text as {known[1]}; correct one of the two rows."
        )


def _number_only(path: Path, where: str) -> str:
    return where.removeprefix(f"{path}, ")


def _kind(value: Any) -> str:
    names = {dict: "a nested object", list: "a list", bool: "true or false", type(None): "missing", bytes: "bytes"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")


def _shown(word: str) -> str:
    """A short word as it is; a long one may be a patient's text and is never repeated."""
    return repr(word) if len(word) <= 40 else f"of {len(word)} characters"
