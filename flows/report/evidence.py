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
from flows.report.table import Table
from flows.report.typed_rows import EvaluationRow
from warehouse.connect import snapshot


def evidence(
    board: list[EvaluationRow],
    prevalence: float | None = None,
    sections: Collection[str] | None = None,
    ids: Collection[str] | None = None,
) -> list[Table]:
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
) -> list[Table]:
    """`evidence` of the evaluations on one test set."""
    unchanged = not_restated_note(prevalence)
    restated = restated_note(prevalence)
    tables: dict[str, Callable[[], list[Table]]] = {
        "gates": lambda: [gates(board, ids).with_note(unchanged)],
        "rules": lambda: [
            *rules(board, prevalence),
            *(table.with_note(unchanged) for table in choices(board)),
            confusion(board).with_note(unchanged),
        ],
        "sets and seeds": lambda: [
            by_source(board, prevalence, ids).with_note(restated),
            seeds(board, prevalence, ids).with_note(restated),
            standard(board).with_note(unchanged),
        ],
        "calibration": lambda: [
            calibration(board).with_note(unchanged),
            discrimination(board).with_note(unchanged),
            sets_and_answers(board).with_note(unchanged),
        ],
        "review": lambda: [review(board).with_note(unchanged)],
        "flips": lambda: [flips(board).with_note(unchanged)],
        "fidelity": lambda: [
            fidelity(board).with_note(unchanged),
            pooled_over_adapters(board, ids).with_note(unchanged),
            against_reference(board, ids).with_note(unchanged),
            frontier(board, ids).with_note(unchanged),
        ],
    }
    chosen_tables = [
        make_tables()
        for name, make_tables in tables.items()
        if sections is None or name in sections
    ]

    return [table for section in chosen_tables for table in section if len(table)]
