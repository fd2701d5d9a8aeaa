"""The whole comparison: the order of all tables, and the page of an artifact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from flows.report.answer import answer
from flows.report.figures import disclaimer
from flows.report.gates import gates, prevalence_note, review, standard
from flows.report.leaderboard import SEEDS, SOURCES, by_source, leaderboard, named_sets, seeds
from flows.report.pairs import (
    against_reference,
    fidelity,
    flips,
    frontier,
    pairs_on,
    pooled_over_adapters,
    quantization,
    recipe_table,
)
from flows.report.rules import FARE, calibration, choices, confusion, rules
from flows.report.table import ReportTable
from flows.report.typed_rows import Board, Ids, Row
from warehouse.connect import snapshot

PAIRS = "4 bits against 8 bits"
NO_ROWS = "No rows yet."
# Titles of the tables that --prevalence restates.
RESTATED = (FARE, SOURCES, SEEDS)


def evidence(
    board: Board,
    prevalence: float | None = None,
    sections: Collection[str] | None = None,
    ids: Ids = None,
) -> list[ReportTable]:
    """The tables about the evaluations of `board` that have rows: all, or those of
    `sections`. Each test set has tables of its own, whose titles name it where there are several.

    `ids`: the evaluations of the study, None for all of the experiments of `board`. `prevalence`
    restates precision and F2 where a table has them; the titles of the others say
    that it does not apply.
    """
    # Functions, so that only the chosen sections ask the warehouse.
    makers: dict[str, Callable[[Board], list[ReportTable]]] = {
        "gates": lambda rows: [gates(rows, ids)],
        "rules": lambda rows: [*rules(rows, prevalence), *choices(rows), confusion(rows)],
        "sets and seeds": lambda rows: [
            by_source(rows, prevalence, ids),
            seeds(rows, prevalence, ids),
            standard(rows),
        ],
        "calibration": calibration,
        "review": lambda rows: [review(rows)],
        "flips": lambda rows: [flips(rows)],
        "fidelity": lambda rows: [
            fidelity(rows),
            pooled_over_adapters(rows, ids),
            against_reference(rows, ids),
            frontier(rows, ids),
        ],
    }
    with snapshot():
        return [
            table.noted(prevalence_note(prevalence, table.title.startswith(RESTATED)), set_name)
            for set_name, rows in named_sets(board)
            for section, make_tables in makers.items()
            if sections is None or section in sections
            for table in make_tables(rows)
            if len(table)
        ]


def as_markdown(
    board: Board,
    pairs: list[Row],
    recipes: Sequence[Row] = (),
    ids: Ids = None,
    claim: Row | None = None,
) -> str:
    """The whole comparison as one Markdown page, the answer first; each test set has its own
    tables. `recipes`: rows of quantization_summary; `ids`: the evaluations of the study.
    """
    pair_tables = []
    boards = []
    for name, rows in named_sets(board) or [("", [])]:
        of_set = pairs_on(rows, pairs)
        title = f": {name}" if name else ""
        pair_tables.append((f"{PAIRS}{title}", recipe_table(pairs_on(rows, recipes), whole=True)))
        pair_tables.append((f"{PAIRS}, training by training{title}", quantization(of_set)))
        boards.append((f"Leaderboard{title}", leaderboard(rows)))

    sections = [
        *pair_tables,
        *boards,
        *((table.title, table) for table in evidence(board, ids=ids)),
    ]
    texts = [f"# {title}\n\n{_grid(table)}" for title, table in sections]
    lines = "\n".join(f"- {line}" for line in answer(board, pairs, recipes, claim))
    notice = disclaimer({row.set_digest for row in board})
    return "\n\n".join([lines, *texts, notice])


def _grid(table: ReportTable) -> str:
    if not len(table):
        return NO_ROWS
    lines = [
        [name.replace("\n", " ") for name in table.columns],
        *([text.replace("\n", "<br>") for text in row] for row in table.rows),
    ]
    head, *rows = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, "|" + "---|" * len(table.columns), *rows])
