"""`triage compare`: leaderboard, 4 bits against 8 bits, and the evidence behind."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console

from flows.report.evidence import OWN_SHARE, evidence
from flows.report.frames import MOST_ON_SIDE, print_frame, print_in_parts
from flows.report.leaderboard import leaderboard
from flows.report.names import NOT_A_DEVICE
from flows.report.pairs import quantization
from flows.report.prevalence import check_prevalence
from warehouse.health import bring_up_to_date

MORE = "For gates, decision rules, confusion matrices, calibration, the review flag, flips and fidelity: triage compare"


def print_comparison(
    console: Console,
    only: Collection[str] | None = None,
    prevalence: float | None = None,
    short: bool = False,
) -> None:
    """Leaderboard, 4-bit against 8-bit, and the evidence behind: of the latest evaluations, or of those whose
    ids are in `only`.

    `prevalence` restates precision and F2 at another share of emergencies. `short` leaves the evidence out, and says
    where it is.
    """
    check_prevalence(prevalence)
    bring_up_to_date()
    board, pairs = leaderboard(only, prevalence), quantization(only)
    if board.empty:
        nothing = "The warehouse holds no finished experiment"
        console.print(
            f"{nothing} yet. Next: triage sweep demo"
            if only is None
            else f"{nothing} of this sweep."
        )
        return
    print_in_parts(console, board, "Experiments on the test set, with 95 % intervals")
    if len(pairs):
        title = "4 bits (first line) against 8 bits (second line); differences are 4 minus 8, paired by case"
        title += "" if prevalence is None else OWN_SHARE
        show = print_frame if len(pairs) <= MOST_ON_SIDE else print_in_parts
        show(console, pairs, title)
    for title, frame in [] if short else evidence(only, prevalence):
        print_in_parts(console, frame, title)
    if short:
        console.print(MORE, soft_wrap=True)
    console.print(NOT_A_DEVICE)
