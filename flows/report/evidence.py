"""The tables behind the comparison, in the order in which a safety reviewer asks for them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from flows.report.calibration import calibration, sets_and_answers
from flows.report.discrimination import discrimination
from flows.report.evaluation_sets import by_source
from flows.report.frontier import against_reference, frontier
from flows.report.gates import gates, standard
from flows.report.leaderboard import named_sets
from flows.report.precision import fidelity, flips
from flows.report.precision_pools import pooled_over_adapters
from flows.report.prevalence import not_restated_note, restated_note
from flows.report.review import review
from flows.report.rules import choices, confusion, rules
from flows.report.seeds import seeds
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow
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
