"""What `triage compare` prints: the answer, leaderboard, pairs, and the evidence behind them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console

from flows.cli.terminal import print_line
from flows.cli.waiting import load_what_waits
from flows.report.answer import answer
from flows.report.disclaimer import disclaimer
from flows.report.evidence import evidence
from flows.report.leaderboard import by_test_set, leaderboard
from flows.report.names import names_elsewhere
from flows.report.overview import left_out, overview
from flows.report.pair_lines import pair_lines
from flows.report.pairs import PairRow, headline, pair_rows, quantization
from flows.report.prevalence import check_prevalence, not_restated_note
from flows.report.study import evaluation_ids, select_study, study_rows
from flows.report.table import MOST_ON_SIDE, print_in_parts, print_lines, print_table
from flows.report.typed_rows import EvaluationRow, leaderboard_rows
from warehouse.health import bring_up_to_date
from warehouse.summary import pooled_sets

BANDS = (
    "The intervals on top hold for all pooled figures at once; those below for one figure each, so "
    "they are narrower."
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
    board = leaderboard_rows(only)
    if not board:
        print_line(console, _nothing_finished(only, of))
        return

    pairs = pair_rows(only)
    sentences = answer(board, pairs, pooled_sets(only))
    print_line(console, " ".join(sentences), style="bold")

    is_whole = sections is None
    print_board = _print_leaderboards if is_whole else _print_overviews
    print_board(console, board, prevalence)

    if pairs:
        print_line(console, headline(pairs))
        if any("[" in sentence for sentence in sentences):
            print_line(console, BANDS)
        print_pairs = _print_pairs if is_whole else _print_pair_lines
        print_pairs(console, pairs, prevalence)

    tables = evidence(board, prevalence, sections, only)
    names = names_elsewhere(board)
    if names and (tables or is_whole):
        print_line(console, names)
    for table in tables:
        print_in_parts(console, table)

    if not is_whole:
        print_line(console, MORE)

    print_line(console, disclaimer({row.set_digest for row in board}))


def _print_leaderboards(
    console: Console, board: Collection[EvaluationRow], prevalence: float | None
) -> None:
    for part in by_test_set(board):
        print_in_parts(console, leaderboard(part, prevalence))


def _print_overviews(
    console: Console, board: Collection[EvaluationRow], prevalence: float | None
) -> None:
    """Print a line an experiment: on a terminal the best, and the columns that it holds."""
    most = MOST_MODELS if console.is_terminal else len(board)
    hidden: Sequence[str] = []
    for part in by_test_set(board):
        hidden = print_overview(console, part, most, prevalence)

    if hidden:
        columns = ", ".join(hidden)
        print_line(console, f"A wider terminal, or --all, has room for {columns}.", style="dim")


def print_overview(
    console: Console,
    board: Collection[EvaluationRow],
    most: int,
    prevalence: float | None = None,
) -> Sequence[str]:
    """Print the first `most` models and baselines of a test set's leaderboard, in the columns that
    the console holds, and how many more there are; returns the names of the other columns.
    """
    table = overview(board, most, prevalence)
    shown_table = table.fitting(console.width)
    print_lines(console, shown_table)
    if rest := left_out(board, most):
        print_line(console, rest, style="dim")
    return table.names[len(shown_table.columns) :]


def _print_pair_lines(
    console: Console, pairs: Collection[PairRow], prevalence: float | None
) -> None:
    """Print a line a pair and figure; another prevalence changes neither accuracy nor recall."""
    most = MOST_PAIRS if console.is_terminal else len(pairs)
    for table in pair_lines(pairs, most):
        noted_table = table.with_note(not_restated_note(prevalence))
        print_lines(console, noted_table.fitting(console.width))


def _print_pairs(console: Console, pairs: Collection[PairRow], prevalence: float | None) -> None:
    table = quantization(pairs).with_note(not_restated_note(prevalence))
    if len(table) <= MOST_ON_SIDE:
        print_table(console, table)
    else:
        print_in_parts(console, table)


def _nothing_finished(only: Collection[str] | None, of: str | None) -> str:
    beginning = "The warehouse holds no finished experiment"
    if only is None:
        return f"{beginning} yet. Next: triage sweep demo"
    return f"{beginning} of the {of}." if of else f"{beginning} of this sweep."
