"""`triage compare`: the answer and the models of a study, and the evidence behind them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.terminal import (
    AsJson,
    Prevalence,
    Study,
    console,
    print_json,
    print_line,
    refresh_warehouse,
)
from flows.report.answer import Answer, answer
from flows.report.figures import disclaimer
from flows.report.models import first_table
from flows.report.rows import Study as StudyRows
from flows.report.rows import find_study, studied, study_rows
from flows.report.sections import ASKED, tables_of
from flows.report.table import Table, print_table
from warehouse.connect import snapshot

MOST_MODELS = 20  # lines on a terminal; output into a file or a pipe has all of them
WIDE = 100  # characters from which on a figure has a digit more
OPTIONS = ", ".join(f"--{name}" for name in ASKED)

Everything = Annotated[bool, typer.Option("--all", help="print every table")]
Models = Annotated[bool, typer.Option("--models", help="also every figure, and all baselines")]
Pairs = Annotated[bool, typer.Option("--pairs", help="also 4 minus 8 bits, by recipe and training")]
Gates = Annotated[bool, typer.Option("--gates", help="also the gates of every experiment")]
Rules = Annotated[bool, typer.Option("--rules", help="also decision rules, confusion matrices")]
Calibration = Annotated[bool, typer.Option("--calibration", help="also calibration")]
Review = Annotated[bool, typer.Option("--review", help="also the review flag")]
Flips = Annotated[bool, typer.Option("--flips", help="also decisions that a precision changes")]
Fidelity = Annotated[bool, typer.Option("--fidelity", help="also what precision alone changes")]


def compare(
    study: Study = None,
    prevalence: Prevalence = None,
    models: Models = False,
    pairs: Pairs = False,
    gates: Gates = False,
    rules: Rules = False,
    calibration: Calibration = False,
    review: Review = False,
    flips: Flips = False,
    fidelity: Fidelity = False,
    show_all: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Compare 4-bit with 8-bit experiments of a study: the answer, and a line a model."""
    chosen = (models, pairs, gates, rules, calibration, review, flips, fidelity)
    asked = [name for name, is_asked in zip(ASKED, chosen, strict=True) if is_asked]
    if as_json:
        print_study_as_json(study, prevalence)
    else:
        print_study(console, study, prevalence, None if show_all else asked)


def print_study(
    console: Console,
    name: str | None = None,
    prevalence: float | None = None,
    asked: Collection[str] | None = (),
) -> None:
    """Print the comparison of a study; without a name, of that of the last sweep.

    `asked`: what further tables are about; None: all of them. With a `prevalence`, at which ED
    precision and F2 are restated, the table that has them is printed too.

    Raises BadInput, with the nearest name, for a study that is not there.
    """
    refresh_warehouse()
    # Of one moment, though a sweep may land results; printed outside, as writers wait meanwhile.
    with snapshot():
        studies = studied(name, prevalence)
        if prevalence is not None and asked is not None:
            asked = ["models", *(name for name in asked if name != "models")]
        tables = tables_of(studies, asked)
        given = answer(studies[0]) if studies else None
        first = shown_first(console, studies[0]) if studies else None
        others = [row.study for row in study_rows()]

    if given is None or first is None:
        found = find_study(name)
        rest = f" of the study {found.study}." if found else " yet. Next: triage sweep demo"
        print_line(console, f"The warehouse holds no finished experiment{rest}")
        return

    print_answer(console, given, first)
    if asked is None or "pairs" in asked:
        for line in given.details:
            print_line(console, line)
    for table in tables:
        console.print()
        print_table(console, table, MOST_MODELS)

    if further := studies[1:]:
        sets = ", ".join(one.set_name for one in further)
        print_line(console, f"Judged before, on other cases (--all has their tables): {sets}.")
    if asked is not None:
        print_line(
            console, f"For more: triage compare {studies[0].name or ''} --all, or {OPTIONS}."
        )
    print_line(console, disclaimer({row.set_digest for one in studies for row in one.board}))
    if len(others) > 1:
        rest = ", ".join(other for other in others if other != studies[0].name)
        print_line(console, f"This was the study {studies[0].name}. Others: {rest}.")


def shown_first(console: Console, study: StudyRows) -> Table:
    """The table of models with the baseline, as exact as the console is wide."""
    return first_table(study, digits=1 if console.width >= WIDE else 0)


def print_answer(console: Console, given: Answer, first: Table) -> None:
    """Print what is to be seen first: the answer, and the table of models with the baseline."""
    print_line(console, given.sentence, style="bold")
    print_table(console, first, MOST_MODELS, whole=True)


def print_study_as_json(name: str | None, prevalence: float | None) -> None:
    """Print the answer, and the rows of models, recipes and pairs on each test set, as JSON."""
    refresh_warehouse()
    with snapshot():
        studies = studied(name, prevalence)
        given = answer(studies[0]) if studies else None
        sets = [
            {
                "set_digest": study.board[0].set_digest,
                "models": [vars(row) for row in study.models],
                "recipes": [vars(row) for row in study.recipes],
                "pairs": [vars(row) for row in study.pairs],
            }
            for study in studies
        ]
    print_json(
        {
            "study": studies[0].name if studies else name,
            "answer": given.sentence if given else None,
            "details": given.details if given else [],
            "test_sets": sets,
        }
    )
