"""`triage compare`: the answer, leaderboard and pairs of a study, and the evidence behind them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.terminal import (
    Prevalence,
    Study,
    console,
    print_answer,
    print_line,
    refresh_warehouse,
)
from flows.report.answer import answer, claim_of
from flows.report.evidence import evidence
from flows.report.figures import RANDOM, counted, disclaimer
from flows.report.gates import check_prevalence, prevalence_note
from flows.report.leaderboard import (
    evaluation_ids,
    find_study,
    leaderboard,
    left_out,
    named_sets,
    only_random_weights,
    overview,
    study_rows,
)
from flows.report.pairs import (
    NO_PAIR,
    pair_lines,
    pair_rows,
    pairs_on,
    quantization,
    recipe_table,
    summary_rows,
)
from flows.report.table import ReportTable, print_lines, print_narrow
from flows.report.typed_rows import Row, leaderboard_rows
from warehouse.connect import snapshot

# Lines on a terminal; output into a file or a pipe has all of them.
MOST_MODELS = 20
MOST_PAIRS = 10
MORE = (
    "For more: triage compare with --gates, --rules, --calibration, --review, --flips, --fidelity, "
    "or triage compare --all"
)

Everything = Annotated[
    bool, typer.Option("--all", help="print every table: gates, rules, calibration, flips, ...")
]
Gates = Annotated[bool, typer.Option("--gates", help="also the gates of every experiment")]
Rules = Annotated[bool, typer.Option("--rules", help="also decision rules, confusion matrices")]
Calibration = Annotated[bool, typer.Option("--calibration", help="also calibration")]
Review = Annotated[bool, typer.Option("--review", help="also the review flag")]
Flips = Annotated[bool, typer.Option("--flips", help="also decisions that a precision changes")]
Fidelity = Annotated[bool, typer.Option("--fidelity", help="also what precision alone changes")]


def compare(
    study: Study = None,
    prevalence: Prevalence = None,
    gates: Gates = False,
    rules: Rules = False,
    calibration: Calibration = False,
    review: Review = False,
    flips: Flips = False,
    fidelity: Fidelity = False,
    show_all: Everything = False,
) -> None:
    """Compare 4-bit with 8-bit experiments of a study: the answer, leaderboard and pairs."""
    asked = {
        "gates": gates,
        "rules": rules,
        "calibration": calibration,
        "review": review,
        "flips": flips,
        "fidelity": fidelity,
    }
    sections = None if show_all else [name for name, is_asked in asked.items() if is_asked]
    print_study(console, study, prevalence, sections)


def print_study(
    console: Console,
    name: str | None = None,
    prevalence: float | None = None,
    sections: Collection[str] | None = None,
) -> None:
    """Print the comparison of a study; without a name, of that of the last sweep.

    `prevalence` restates precision and F2 at another share of emergencies. `sections`: what further
    tables are about; None: all of them.

    Raises BadInput, with the nearest name, for a study that is not there.
    """
    check_prevalence(prevalence)
    refresh_warehouse()
    # Of one moment, though a sweep may land results; printed outside, as writers wait meanwhile.
    with snapshot():
        study = find_study(name)
        only = None if study is None else evaluation_ids(study.study)
        others = [row.study for row in study_rows() if study and row.study != study.study]
        board = leaderboard_rows(only)
        pairs = pair_rows(only)
        recipes = summary_rows(only)
        tables = evidence(board, prevalence, sections, only) if board else []
        claim = claim_of(study.study) if study else None
        lines = answer(board, pairs, recipes, claim) if board else []

    if board:
        print_answer(console, lines)
        _print_boards(console, board, prevalence, is_whole=sections is None)
        for set_name, part in named_sets(board) if pairs else ():
            pairs_here = pairs_on(part, pairs)
            question = "4 bits against 8 bits" + (f" on {set_name}" if set_name else "")
            count = f", {counted(len(pairs_here), 'pair')}" if pairs_here else f": {NO_PAIR}"
            print_line(console, f"{question}{count}.")
            # Another prevalence changes neither accuracy nor recall.
            notes = (prevalence_note(prevalence), set_name)
            of_recipes = pairs_on(part, recipes)
            _print_pairs(console, board, pairs_here, of_recipes, notes, is_whole=sections is None)

        for table in tables:
            _print_whole(console, table, board)
        if sections is not None:
            print_line(console, MORE)
        print_line(console, disclaimer({row.set_digest for row in board}))
    else:
        rest = f" of the study {study.study}." if study else " yet. Next: triage sweep demo"
        print_line(console, f"The warehouse holds no finished experiment{rest}")

    if study and others:
        print_line(
            console,
            f"This was the study {study.study}. Others: {', '.join(others)} "
            "(triage warehouse studies)",
        )


def _print_boards(
    console: Console, board: list[Row], prevalence: float | None, is_whole: bool
) -> None:
    """Print every column of the leaderboards, or a line an experiment: on a terminal the best, and
    the columns that it holds.
    """
    most = MOST_MODELS if console.is_terminal else len(board)
    hidden: Sequence[str] = []
    for name, part in named_sets(board):
        if is_whole:
            _print_whole(console, leaderboard(part, prevalence).noted(name), board)
        else:
            hidden = print_overview(console, part, most, prevalence, name)

    if hidden:
        columns = ", ".join(hidden)
        print_line(console, f"A wider terminal, or --all, has room for {columns}.", style="dim")


def _print_pairs(
    console: Console,
    board: list[Row],
    pairs: list[Row],
    recipes: list[Row],
    notes: Sequence[str],
    is_whole: bool,
) -> None:
    if pairs and is_whole:
        for whole in (recipe_table(recipes, whole=True), quantization(pairs)):
            _print_whole(console, whole.noted(*notes), board)
    elif pairs:
        most = MOST_PAIRS if console.is_terminal else len(pairs)
        for short in (recipe_table(recipes), pair_lines(pairs, most)):
            if len(short):
                print_lines(console, short.noted(*notes).fitting(console.width, at_least=3))


def _print_whole(console: Console, table: ReportTable, board: list[Row]) -> None:
    """Print every column; on a terminal the first rows, with the query that has all of them. Where
    all weights of `board` are random, names do not repeat it.
    """
    most = MOST_MODELS if console.is_terminal else len(table)
    print_narrow(console, table.without(RANDOM) if only_random_weights(board) else table, most)


def print_overview(
    console: Console,
    board: Collection[Row],
    most: int,
    prevalence: float | None = None,
    set_name: str = "",
) -> Sequence[str]:
    """Print the first `most` models and baselines of a test set's leaderboard, in the columns that
    the console holds, and how many more there are; returns the names of the other columns.

    `set_name`: of the test set, where there are several.
    """
    table = overview(board, most, prevalence)
    if set_name:
        table = replace(table, title=f"{table.title} This is {set_name}.")
    shown_table = table.fitting(console.width)
    print_lines(console, shown_table)
    if rest := left_out(board, most):
        print_line(console, rest, style="dim")
    return table.names[len(shown_table.columns) :]
