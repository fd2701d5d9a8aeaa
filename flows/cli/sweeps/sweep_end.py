"""What a sweep prints at its end: the answer, a line an experiment,
failures, and where the rest is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console

from flows.cli.results.compare_report import print_overview
from flows.cli.terminal import print_answer, print_line
from flows.html_report.after_sweep import place_of_report
from flows.report.answer import answer
from flows.report.disclaimer import disclaimer
from flows.report.leaderboard import named_sets
from flows.report.pairs import pair_rows
from flows.report.typed_rows import EvaluationRow, leaderboard_rows
from warehouse.comparison.summary import pooled_sets
from warehouse.health import bring_up_to_date

MOST_LINES = 10  # of trained models, and as many of baselines
MOST_FAILURES = 10
NOTHING = "The warehouse holds no finished experiment of this sweep."


def print_results(console: Console, study: str, ids: Collection[str]) -> None:
    """Print the answer that the evaluations `ids` of a study give, and where the rest is."""
    bring_up_to_date()
    board = leaderboard_rows(ids)
    if not board:
        print_line(console, NOTHING)
        return

    print_answer(console, answer(board, pair_rows(ids), pooled_sets(ids)))
    for name, part in named_sets(board):
        print_overview(console, part, MOST_LINES, set_name=name)

    _print_further(console, study, board)
    if line := place_of_report(study):
        print_line(console, line)

    print_line(console, disclaimer({row.set_digest for row in board}))


def print_failures(console: Console, message: str) -> None:
    """Print the failures that the message of a failed sweep names, a line each."""
    heading, _, text = message.partition(": ")
    # As flows/sweep.py joins them.
    failures = text.split(" | ")
    print_line(console, f"Not everything finished. {heading}:", style="bold red")
    for failure in failures[:MOST_FAILURES]:
        print_line(console, failure, style="red")
    if hidden := len(failures[MOST_FAILURES:]):
        print_line(console, f"and {hidden} more, printed above")


def _print_further(console: Console, study: str, board: Sequence[EvaluationRow]) -> None:
    """The commands that print the rest, to be copied; the first model stands for all."""
    commands = {
        f"triage compare {study} --all": "rules, calibration, changed decisions",
    }
    if model := next((row.cell_id for row in board if row.recipe_kind != "baseline"), None):
        commands[f"triage gates {model}"] = "one experiment"

    print_line(console, "For more:")
    for command, shown in commands.items():
        print_line(console, f"  {command}  # {shown}")
