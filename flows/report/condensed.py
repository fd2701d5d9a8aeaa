"""A table in fewer rows: what all rows have in common, and which of them have no figure, as sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from flows.report.table import ReportTable

LABELS = ("rule", "truly", "score")  # columns that name each line of a row of several lines
WITHOUT_FIGURE = ("n/a", "not available")
MOST_NAMES = 4

Missing = dict[tuple[str, str], list[str]]  # names of rows, by label of the line and reason


@dataclass(frozen=True)
class Condensed:
    """A table, and the sentences about what it does not repeat."""

    table: ReportTable
    sentences: tuple[str, ...]


def condensed(table: ReportTable) -> Condensed:
    """The same figures in fewer rows and columns."""
    shorter, missing = _without_empty_lines(table)
    shorter, shared = _without_shared_columns(shorter)
    shorter, endings = _without_shared_endings(shorter)
    sentences = [_missing_sentence(*key, names) for key, names in missing.items()]
    if shared or endings:
        sentences.insert(0, f"In every row: {'; '.join([*endings, *shared])}.")

    return Condensed(shorter, tuple(sentences))


def label_column(table: ReportTable) -> int | None:
    """The place of the column that names each line of a row."""
    return next((place for place, name in enumerate(table.columns) if name in LABELS), None)


def _without_empty_lines(table: ReportTable) -> tuple[ReportTable, Missing]:
    """The table without rows that hold no figure; where lines have labels, without such lines."""
    label = label_column(table)
    names = _short_names(table)
    missing: Missing = defaultdict(list)
    rows = []
    for short_name, (name, *cells) in zip(names, table.rows, strict=True):
        lines: Iterable[Sequence[str]] = _lines(cells) if label is not None else [cells]
        with_figures = []
        for line in lines:
            # Places count the column of names, which `line` is without.
            texts = [text for place, text in enumerate(line, 1) if place != label]
            if any(texts) and _has_no_figure(texts):
                words = line[label - 1].removesuffix(" *") if label is not None else ""
                missing[words, _reason(texts)].append(short_name)
            else:
                with_figures.append(line)

        if with_figures:
            columns = ("\n".join(texts) for texts in zip(*with_figures, strict=True))
            rows.append((name, *columns))

    return replace(table, rows=tuple(rows)), missing


def _short_names(table: ReportTable) -> list[str]:
    """The first line of each name, or all of them where that line alone says not which row."""
    names = [row[0] for row in table.rows]
    first_lines = [name.partition("\n")[0] for name in names]
    return (
        first_lines if len(set(first_lines)) == len(names) else [_one_line(name) for name in names]
    )


def _lines(cells: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """The lines of a row, each with the text of every cell."""
    return zip_longest(*(cell.split("\n") for cell in cells), fillvalue="")


def _has_no_figure(texts: Sequence[str]) -> bool:
    return all(not text or text.lower().startswith(WITHOUT_FIGURE) for text in texts)


def _reason(texts: Sequence[str]) -> str:
    """`no cost matrix` of `n/a: no cost matrix`; the first that is given."""
    reasons = (_one_line(text).partition("n/a: ")[2] or _after_words(text) for text in texts)
    return next(filter(None, reasons), "")


def _after_words(text: str) -> str:
    return _one_line(text).partition("not available: ")[2]


def _missing_sentence(label: str, reason: str, names: Sequence[str]) -> str:
    listed = ", ".join(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        listed += f" and {len(names) - MOST_NAMES} more"
    opening = f"Not available, {label}" if label else "Not available"
    return f"{opening}: {listed}{f' ({reason})' if reason else ''}."


def _without_shared_columns(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The table without columns that say the same in every row, and what they say."""
    shared = [
        place
        for place in range(1, len(table.columns))
        if len(table) > 1
        and table.columns[place] not in LABELS
        and len({row[place] for row in table.rows}) == 1
    ]
    others = [place for place in range(len(table.columns)) if place not in shared]
    sentences = [
        f"{table.names[place]} {_one_line(table.rows[0][place])}"
        for place in shared
        if table.rows[0][place]
    ]
    return replace(table.part(others), title=table.title, query=table.query), sentences


def _without_shared_endings(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The table without last lines that are the same in every row of a column, and these lines."""
    if len(table) < 2:
        return table, []

    with_labels = label_column(table) is not None
    columns = [list(column) for column in zip(*table.rows, strict=True)]
    sentences = []
    for place, cells in enumerate(columns[:1] if with_labels else columns):
        endings = {cell.rpartition("\n")[2] for cell in cells}
        if len(endings) == 1 and all("\n" in cell for cell in cells):
            sentences.append(f"{table.names[place]} {endings.pop()}" if place else endings.pop())
            columns[place] = [cell.rpartition("\n")[0] for cell in cells]

    return replace(table, rows=tuple(zip(*columns, strict=True))), sentences


def _one_line(text: str) -> str:
    return " ".join(text.split())
