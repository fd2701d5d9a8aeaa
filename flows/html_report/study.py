"""The study that a report shows: its evaluations, their labels, the rows of its queries, and what a section holds."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from flows.report.answer import answer
from flows.report.figures import (
    RANDOM,
    disclaimer,
    experiment_name,
    is_number,
    random_mark,
    recipe_name,
)
from flows.report.leaderboard import by_test_set
from flows.report.pairs import pair_rows
from flows.report.studies import evaluation_ids, find_study
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, leaderboard_rows
from tasks.runtime.errors import BadInput
from warehouse.comparison.summary import PooledSet, pooled_sets
from warehouse.cookbook import named_query
from warehouse.query import query_rows

if TYPE_CHECKING:
    pass

EVERYTHING = "all results"  # the name where the warehouse knows no study
NO_MODEL = "no language model"


@dataclass(frozen=True)
class ReportedStudy:
    """What every part of the report is made from.

    `board`: the evaluations on the test set that is shown, in the leaderboard's order;
    `ids`: theirs. `further`: evaluations on other test sets, which are left out.
    `sentences`: those of `triage compare`.
    """

    name: str
    grid: str | None
    grid_digest: str | None
    board: list[EvaluationRow]
    pairs: list[Row]
    pools: list[PooledSet]
    further: int
    sentences: list[str]
    notice: str

    @property
    def ids(self) -> list[str]:
        return [row.evaluation_id for row in self.board]

    @property
    def by_id(self) -> dict[str, EvaluationRow]:
        return {row.evaluation_id: row for row in self.board}

    @property
    def precisions(self) -> list[str]:
        """Series of the charts: precisions, short names first, and what is no model last."""
        names = {series(row) for row in self.board}
        return sorted(names, key=lambda name: (name == NO_MODEL, len(name), name))


def reported_study(name: str | None) -> ReportedStudy:
    """The study of this name; without one, that of the last sweep, or
    everything where there is none.

    Raises BadInput, with the nearest name, for an unknown study, and where nothing has finished.
    """
    study = find_study(name)
    only = evaluation_ids(study.study) if study else None
    board = leaderboard_rows(only)
    if not board:
        raise BadInput(_nothing_to_report(study))

    shown_rows = by_test_set(board)[0]
    ids = [row.evaluation_id for row in shown_rows]
    pools = pooled_sets(only)
    return ReportedStudy(
        name=study.study if study else EVERYTHING,
        grid=study.grid if study else None,
        grid_digest=study.grid_digest if study else None,
        board=shown_rows,
        pairs=pair_rows(ids),
        pools=pools,
        further=len(board) - len(shown_rows),
        sentences=answer(board, pair_rows(only), pools),
        notice=disclaimer({row.set_digest for row in board}),
    )


def _nothing_to_report(study: Row | None) -> str:
    of = f" of the study {study.study}" if study else ""
    return (
        f"The warehouse holds no finished experiment{of}, so there is nothing to report; "
        "run `triage sweep demo` first, or name another study (triage warehouse studies)."
    )


def series(row: EvaluationRow) -> str:
    """What a mark's colour stands for: the precision."""
    return row.precision or NO_MODEL


def full_name(row: EvaluationRow) -> str:
    """An experiment on one line."""
    return experiment_name(row).replace("\n", " ")


def and_others(values: Sequence[float | None], best: float | None) -> str:
    """What follows the name of a best model, for those that reach the same; empty without one."""
    ties = sum(value == best for value in values) - 1
    return f" and {ties} other{'s' if ties > 1 else ''} with the same figure" if ties > 0 else ""


def labels_of(rows: Collection[EvaluationRow]) -> dict[str, str]:
    """The label of each evaluation in a chart of these, by its id."""
    labels = chart_labels([experiment_name(row) for row in rows])
    return {row.evaluation_id: labels[experiment_name(row)] for row in rows}


def short_name(row: EvaluationRow) -> str:
    """An experiment without its precision: what the curves of one panel have in common."""
    if row.precision is None:
        return full_name(row)
    return f"{row.base_model} {recipe_name(row.recipe, row.seed)}{random_mark(row)}"


def panels_of(rows: Collection[EvaluationRow]) -> dict[str, list[EvaluationRow]]:
    """The evaluations of each panel, which differ in precision alone."""
    panels: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        panels.setdefault(short_name(row), []).append(row)
    return panels


def named_rows(name: str, only: Collection[str], **values: str) -> list[Row]:
    """What `triage sql NAME` answers about these evaluations; `values` are those of the query's
    parameters.
    """
    stored_query = named_query(name)
    statement = stored_query.sql.rstrip().removesuffix(";")
    result = query_rows(statement, stored_query.values(values), only=only)
    return [Row(**dict(zip(result.columns, row, strict=True))) for row in result.rows]


class OfEvaluation(Protocol):
    """A row that says which evaluation it is of."""

    @property
    def evaluation_id(self) -> str: ...


Evaluated = TypeVar("Evaluated", bound=OfEvaluation)


def by_evaluation(rows: Collection[Evaluated]) -> dict[str, list[Evaluated]]:
    """The rows of each evaluation, in their order, by its id."""
    groups: dict[str, list[Evaluated]] = {}
    for row in rows:
        groups.setdefault(row.evaluation_id, []).append(row)
    return groups


LABEL_LENGTH = 26  # characters
LEAST_OF_NAME = 9  # characters of a recipe's name by which it is recognised
# Where a line of a label ends, the best place first: it fits, before brackets, at a space or behind
# an underscore, where there is no more room.
_ENDS = ("$", r"(?= \()", "(?:(?= )|(?<=_))", "")
_LINE = re.compile(" ?(" + "|".join(f".{{1,{LABEL_LENGTH}}}{end}" for end in _ENDS) + ")")


def chart_labels(names: Collection[str]) -> dict[str, str]:
    """The label of each experiment of a chart, by its name on two lines: the second one shortened,
    or the whole name where two experiments would have the same label.
    """
    labels = {name: _label(name) for name in names}
    counts = Counter(labels.values())
    return {name: label if counts[label] == 1 else name for name, label in labels.items()}


def _label(name: str) -> str:
    first, _, second = name.partition("\n")
    return f"{first}\n{shortened(second)}"


def shortened(text: str) -> str:
    """A recipe with its seed, not longer than a chart has room for: the middle of the recipe's name
    goes first, since the precision behind it, the seed and the prompt tell models apart. The mark
    of random weights comes on top.
    """
    if text.endswith(RANDOM):
        return shortened(text.removesuffix(RANDOM)) + RANDOM

    plain = text.replace(" (zero-shot)", "").replace("zero-shot, ", "")
    name, space, rest = plain.partition(" ")
    room = LABEL_LENGTH - len(space + rest)
    if len(name) <= room:
        return plain
    if room < LEAST_OF_NAME:
        return f"{plain[: LABEL_LENGTH - 1]}…"
    return f"{name[: room - 5]}…{name[-4:]}{space}{rest}"


def in_lines(label: str) -> str:
    """A label in lines that a chart has room for."""
    return "\n".join(part for line in label.split("\n") for part in _LINE.findall(line))


MOST_IN_ALT = 4  # figures that an alternative text repeats; the table has all


@dataclass(frozen=True)
class Panel:
    """One chart: `name` is that of its file, `alt` says what it shows with its main figures, and
    `drawing` is an SVG with placeholder colours (see drawing.py).
    """

    name: str
    title: str
    alt: str
    drawing: str


@dataclass(frozen=True)
class Section:
    """A part of the report with its charts and the rows behind them.

    `reading` says how to read the charts, `findings` what they show, with intervals. A part without
    rows has `missing` alone: what is not there, and what would give it.
    """

    id: str
    heading: str
    reading: str = ""
    findings: Sequence[str] = ()
    panels: Sequence[Panel] = ()
    tables: Sequence[ReportTable] = ()
    missing: str = ""
    commands: Sequence[str] = field(default=())


def panel_name(*parts: str) -> str:
    """The name of a chart's file: letters, digits and hyphens."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)


def with_own_names(sections: Iterable[Section]) -> list[Section]:
    """The sections of a report, in which a panel whose name an earlier one has gets a number: names
    of experiments may differ in what a file's name cannot hold.
    """
    taken: set[str] = set()
    return [
        replace(section, panels=[_with_own_name(panel, taken) for panel in section.panels])
        for section in sections
    ]


def _with_own_name(panel: Panel, taken: set[str]) -> Panel:
    """The panel under a name that is not among those taken, which it joins."""
    numbered_names = (f"{panel.name}-{number}" for number in itertools.count(2))
    names = itertools.chain([panel.name], numbered_names)
    own_name = next(name for name in names if name not in taken)
    taken.add(own_name)
    return replace(panel, name=own_name)


def some(texts: Collection[str]) -> str:
    """The first few texts, and how many more there are."""
    first_texts = list(texts)[:MOST_IN_ALT]
    remaining_count = len(texts) - len(first_texts)
    more = f"; and {remaining_count} more in the table" if remaining_count else ""
    return "; ".join(first_texts) + more


def one_line(label: str) -> str:
    """A label of a chart in a sentence."""
    return label.replace("\n", " ")


def number(value: float | None) -> float | None:
    """A figure that a chart can place, or None."""
    return float(value) if is_number(value) else None
