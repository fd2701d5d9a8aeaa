"""`triage compare`: the answer, leaderboard and pairs of a study, and the evidence behind them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.terminal import (
    Prevalence,
    Study,
    console,
    load_what_waits,
    print_answer,
    print_line,
)
from flows.report.answer import answer
from flows.report.evidence import evidence
from flows.report.figures import RANDOM, disclaimer
from flows.report.gates import check_prevalence, not_restated_note
from flows.report.leaderboard import (
    ALL_RANDOM,
    leaderboard,
    left_out,
    named_sets,
    only_random_weights,
    overview,
)
from flows.report.pairs import headline, pair_lines, pair_rows, pairs_on, quantization
from flows.report.studies import evaluation_ids, select_study, study_rows
from flows.report.table import ReportTable, print_lines, print_narrow
from flows.report.typed_rows import EvaluationRow, leaderboard_rows
from warehouse.comparison.summary import pooled_sets
from warehouse.connect import snapshot
from warehouse.health import bring_up_to_date

BANDS = (
    "On top, intervals over cases hold for all pooled figures at once; those over trainings, and "
    "those below, hold for one figure each. A verdict below is about two trained models: what chance "
    "does to a training is not in it."
)
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
    section_options = {
        "gates": gates,
        "rules": rules,
        "calibration": calibration,
        "review": review,
        "flips": flips,
        "fidelity": fidelity,
    }
    asked = [name for name, is_asked in section_options.items() if is_asked]
    print_study(console, study, prevalence, None if show_all else asked)


def print_study(
    console: Console,
    name: str | None,
    prevalence: float | None = None,
    sections: Collection[str] | None = None,
) -> None:
    """Print the comparison of a study; without a name, of that of the last sweep.

    `sections`: what further tables are about; None: all of them.

    Raises BadInput, with the nearest name, for a study that is not there.
    """
    check_prevalence(prevalence)
    load_what_waits()
    bring_up_to_date()
    studies = study_rows()
    study = select_study(studies, name)
    if study is None:
        print_comparison(console, None, prevalence, sections)
        return

    name = f"the study {study.study}"
    print_comparison(console, evaluation_ids(study.study), prevalence, sections, name)
    other_studies = ", ".join(row.study for row in studies if row is not study)
    if other_studies:
        print_line(console, f"This was {name}. Others: {other_studies} (triage warehouse studies)")


def print_comparison(
    console: Console,
    only: Collection[str] | None = None,
    prevalence: float | None = None,
    sections: Collection[str] | None = None,
    of: str = "this sweep",
) -> None:
    """Print the comparison of the latest evaluations, or of those whose ids are in `only`.

    `prevalence` restates precision and F2 at another share of emergencies. `sections`: what further
    tables are about; None: all of them. `of`: whose the evaluations are.
    """
    check_prevalence(prevalence)
    load_what_waits()
    bring_up_to_date()
    # Of one moment, though a sweep may land results; printed outside, as writers wait meanwhile.
    with snapshot():
        board = leaderboard_rows(only)
        pairs = pair_rows(only)
        pooled = pooled_sets(only)
        tables = evidence(board, prevalence, sections, only) if board else []

    if not board:
        rest = " yet. Next: triage sweep demo" if only is None else f" of {of}."
        print_line(console, f"The warehouse holds no finished experiment{rest}")
        return

    lines = answer(board, pairs, pooled)
    print_answer(console, lines)

    is_whole = sections is None
    all_random = only_random_weights(board)
    if is_whole and all_random:
        print_line(console, ALL_RANDOM)
    if is_whole:
        for name, part in named_sets(board):
            _print_whole(console, leaderboard(part, prevalence).with_notes([name]), all_random)
    else:
        _print_overviews(console, board, prevalence)

    explains_bands = any("[" in line for line in lines)
    for name, part in named_sets(board) if pairs else ():
        pairs_here = pairs_on(part, pairs)
        print_line(console, headline(pairs_here, name))
        if not pairs_here:
            continue
        if explains_bands:
            print_line(console, BANDS)
            explains_bands = False

        # Another prevalence changes neither accuracy nor recall.
        if is_whole:
            table = quantization(pairs_here).with_note(not_restated_note(prevalence))
            _print_whole(console, table.with_notes([name]), all_random)
        else:
            most = MOST_PAIRS if console.is_terminal else len(pairs_here)
            for table in pair_lines(pairs_here, most):
                noted = table.with_note(not_restated_note(prevalence)).with_notes([name])
                print_lines(console, noted.fitting(console.width))

    for table in tables:
        _print_whole(console, table, all_random)
    if not is_whole:
        print_line(console, MORE)
    print_line(console, disclaimer({row.set_digest for row in board}))


def _print_whole(console: Console, table: ReportTable, all_random: bool) -> None:
    """Print every column; on a terminal the first rows, with the query that has all of them.

    `all_random`: names do not repeat that weights are random.
    """
    most = MOST_MODELS if console.is_terminal else len(table)
    print_narrow(console, table.without(RANDOM) if all_random else table, most)


def _print_overviews(
    console: Console, board: Collection[EvaluationRow], prevalence: float | None
) -> None:
    """Print a line an experiment: on a terminal the best, and the columns that it holds."""
    most = MOST_MODELS if console.is_terminal else len(board)
    hidden: Sequence[str] = []
    for name, part in named_sets(board):
        hidden = print_overview(console, part, most, prevalence, name)

    if hidden:
        columns = ", ".join(hidden)
        print_line(console, f"A wider terminal, or --all, has room for {columns}.", style="dim")


def print_overview(
    console: Console,
    board: Collection[EvaluationRow],
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
        table = table.with_note(f" This is {set_name}.")
    shown_table = table.fitting(console.width)
    print_lines(console, shown_table)
    if rest := left_out(board, most):
        print_line(console, rest, style="dim")
    return table.names[len(shown_table.columns) :]
