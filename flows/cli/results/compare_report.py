"""What `triage compare` prints: the answer, leaderboard, pairs, and the evidence behind them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console

from flows.cli.terminal import print_answer, print_line
from flows.cli.waiting import load_what_waits
from flows.report.answer import answer
from flows.report.disclaimer import disclaimer
from flows.report.evidence import evidence
from flows.report.leaderboard import leaderboard, named_sets
from flows.report.names import RANDOM
from flows.report.narrow import print_narrow
from flows.report.overview import ALL_RANDOM, left_out, only_random_weights, overview
from flows.report.pair_lines import pair_lines
from flows.report.pairs import PairRow, headline, pair_rows, pairs_on, quantization
from flows.report.prevalence import check_prevalence, not_restated_note
from flows.report.study import evaluation_ids, select_study, study_rows
from flows.report.table import ReportTable, print_lines
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
    print_comparison(
        console,
        evaluation_ids(study.study) if study else None,
        prevalence,
        sections=sections,
        of=f"study {study.study}" if study else None,
    )

    other_studies = [row.study for row in studies if row is not study]
    if study and other_studies:
        print_line(
            console,
            (
                f"This was the study {study.study}. Others: {', '.join(other_studies)} (triage "
                "studies)"
            ),
        )


def print_comparison(
    console: Console,
    only: Collection[str] | None = None,
    prevalence: float | None = None,
    sections: Collection[str] | None = None,
    of: str | None = None,
) -> None:
    """Print the comparison of the latest evaluations, or of those whose ids are in `only`.

    `prevalence` restates precision and F2 at another share of emergencies. `sections`: what further
    tables are about; None: all of them. `of`: whose the evaluations are, if not the sweep's.
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
        print_line(console, _nothing_finished(only, of))
        return

    lines = answer(board, pairs, pooled)
    has_bands = any("[" in line for line in lines)
    print_answer(console, lines)

    is_whole = sections is None
    all_random = only_random_weights(board)
    if is_whole:
        if all_random:
            print_line(console, ALL_RANDOM)
        for name, part in named_sets(board):
            _print_whole(console, leaderboard(part, prevalence).with_notes([name]), all_random)
    else:
        _print_overviews(console, board, prevalence)

    sets = [(name, pairs_on(part, pairs)) for name, part in named_sets(board) if pairs]
    explained_set = next((name for name, pairs_here in sets if pairs_here and has_bands), None)
    for name, pairs_here in sets:
        print_line(console, headline(pairs_here, name))
        if name == explained_set:
            print_line(console, BANDS)
        if pairs_here and is_whole:
            _print_whole_pairs(console, pairs_here, prevalence, name, all_random)
        elif pairs_here:
            _print_pair_lines(console, pairs_here, prevalence, name)

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


def _print_whole_pairs(
    console: Console,
    pairs: Collection[PairRow],
    prevalence: float | None,
    set_name: str,
    all_random: bool,
) -> None:
    """Print the table of one test set's pairs."""
    table = quantization(pairs).with_note(not_restated_note(prevalence))
    _print_whole(console, table.with_notes([set_name]), all_random)


def _print_pair_lines(
    console: Console, pairs: Collection[PairRow], prevalence: float | None, set_name: str
) -> None:
    """Print a line a pair and figure of one test set; another prevalence changes neither accuracy
    nor recall.
    """
    most = MOST_PAIRS if console.is_terminal else len(pairs)
    for table in pair_lines(pairs, most):
        noted_table = table.with_note(not_restated_note(prevalence)).with_notes([set_name])
        print_lines(console, noted_table.fitting(console.width))


def _nothing_finished(only: Collection[str] | None, of: str | None) -> str:
    beginning = "The warehouse holds no finished experiment"
    if only is None:
        return f"{beginning} yet. Next: triage sweep demo"
    return f"{beginning} of the {of}." if of else f"{beginning} of this sweep."
