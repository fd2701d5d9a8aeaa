"""The whole comparison: the order of all tables, and the page of an artifact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from flows.report.answer import answer
from flows.report.calibration import calibration, discrimination, sets_and_answers
from flows.report.figures import disclaimer
from flows.report.gates import gates, not_restated_note, restated_note, review, standard
from flows.report.leaderboard import leaderboard, named_sets
from flows.report.pairs import headline, pairs_on, quantization
from flows.report.precision import (
    against_reference,
    fidelity,
    flips,
    frontier,
    pooled_over_adapters,
)
from flows.report.rules import choices, confusion, rules
from flows.report.seeds import seeds
from flows.report.studies import by_source
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row
from warehouse.comparison.summary import PooledSet
from warehouse.connect import snapshot


def evidence(
    board: list[EvaluationRow],
    prevalence: float | None = None,
    sections: Collection[str] | None = None,
    ids: Collection[str] | None = None,
) -> list[ReportTable]:
    """The tables about the evaluations of `board` that have rows: all, or those of
    `sections`. Each test set has tables of its own, whose titles name it where there are several.

    `ids`: the evaluations of the study, None for all of the experiments of `board`. `prevalence`
    restates precision and F2 where a table has them; the titles of the others say
    that it does not apply.
    """
    with snapshot():
        return [
            table.with_notes([name])
            for name, rows in named_sets(board)
            for table in _on_one_set(rows, prevalence, sections, ids)
        ]


def _on_one_set(
    board: list[EvaluationRow],
    prevalence: float | None,
    sections: Collection[str] | None,
    ids: Collection[str] | None,
) -> list[ReportTable]:
    """`evidence` of the evaluations on one test set."""
    unchanged = not_restated_note(prevalence)
    restated = restated_note(prevalence)
    # Functions, so that only the chosen sections ask the warehouse.
    tables: dict[str, Callable[[], list[ReportTable]]] = {
        "gates": lambda: _noted(unchanged, gates(board, ids)),
        "rules": lambda: [
            *rules(board, prevalence),
            *_noted(unchanged, *choices(board), confusion(board)),
        ],
        "sets and seeds": lambda: [
            *_noted(restated, by_source(board, prevalence, ids), seeds(board, prevalence, ids)),
            *_noted(unchanged, standard(board)),
        ],
        "calibration": lambda: _noted(
            unchanged, calibration(board), discrimination(board), sets_and_answers(board)
        ),
        "review": lambda: _noted(unchanged, review(board)),
        "flips": lambda: _noted(unchanged, flips(board)),
        "fidelity": lambda: _noted(
            unchanged,
            fidelity(board),
            pooled_over_adapters(board, ids),
            against_reference(board, ids),
            frontier(board, ids),
        ),
    }
    chosen_tables = [
        make_tables()
        for name, make_tables in tables.items()
        if sections is None or name in sections
    ]

    return [table for section in chosen_tables for table in section if len(table)]


def _noted(note: str, *tables: ReportTable) -> list[ReportTable]:
    return [table.with_note(note) for table in tables]


PAIRS = "4 bits against 8 bits"
NO_ROWS = "No rows yet."


def as_markdown(
    board: list[EvaluationRow],
    pairs: list[Row],
    sets: Sequence[PooledSet] = (),
    ids: Collection[str] | None = None,
) -> str:
    """The whole comparison as one Markdown page, the answer first; each test set has its own
    tables. `sets`: the pooled figures; `ids`: the evaluations of the study.
    """
    parts = [(name, rows, pairs_on(rows, pairs)) for name, rows in named_sets(board) or [("", [])]]
    headlines = [headline(of_set, name) for name, _, of_set in parts]
    sections = [(_title(PAIRS, name), quantization(of_set)) for name, _, of_set in parts]
    sections += [(_title("Leaderboard", name), leaderboard(rows)) for name, rows, _ in parts]
    sections += [(table.title, table) for table in evidence(board, ids=ids)]
    texts = [text for title, table in sections for text in (f"# {title}", _grid(table))]
    lines = "\n".join(f"- {line}" for line in answer(board, pairs, sets))
    notice = disclaimer({row.set_digest for row in board})
    return "\n\n".join([lines, *headlines, *texts, notice])


def _title(title: str, set_name: str) -> str:
    return f"{title}: {set_name}" if set_name else title


def _grid(table: ReportTable) -> str:
    if not len(table):
        return NO_ROWS
    head = _line([name.replace("\n", " ") for name in table.columns])
    rule = "|" + "---|" * len(table.columns)
    cells = ([text.replace("\n", "<br>") for text in row] for row in table.rows)
    rows = [_line(texts) for texts in cells]
    return "\n".join([head, rule, *rows])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
