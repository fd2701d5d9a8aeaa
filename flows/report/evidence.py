"""The tables behind the comparison, in the order in which a safety reviewer asks for them."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from flows.report.calibration import CALIBRATION, SETS, calibration, sets_and_answers
from flows.report.evaluation_sets import SOURCES, by_source
from flows.report.gates import GATES, STANDARD, gates, standard
from flows.report.precision import FIDELITY, FLIPS, fidelity, flips
from flows.report.review import REVIEW, review
from flows.report.rules import CHOICES, CONFUSION, choices, confusion, rules
from flows.report.seeds import SEEDS, seeds
from warehouse.query import query

OWN_SHARE = "; --prevalence does not apply"


def evidence(
    only: Collection[str] | None = None, prevalence: float | None = None
) -> list[tuple[str, pd.DataFrame]]:
    """Titles and tables, those without rows left out. `only`: ids of evaluations, instead of the latest.

    `prevalence` restates precision and F2 where a table has them; the titles of the others say that it does not apply.
    """
    board = query("SELECT * FROM leaderboard", only=only)
    own, restated = (
        ("", "")
        if prevalence is None
        else (OWN_SHARE, f"; precision and F2 restated at {prevalence:.1%} ED")
    )
    made = [
        (GATES + own, gates(board)),
        *rules(board, prevalence),
        (CHOICES + own, choices(board)),
        (CONFUSION + own, confusion(board)),
        (SOURCES + restated, by_source(board, prevalence)),
        (SEEDS + restated, seeds(board, prevalence)),
        (STANDARD + own, standard(board)),
        (CALIBRATION + own, calibration(board)),
        (SETS + own, sets_and_answers(board)),
        (REVIEW + own, review(board)),
        (FLIPS + own, flips(board)),
        (FIDELITY + own, fidelity(board)),
    ]
    return [(title, frame) for title, frame in made if len(frame)]
