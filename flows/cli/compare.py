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
from flows.report.rows import Sealed, studied, study_note
from flows.report.rows import Study as StudyRows
from flows.report.seal import open_claim, progress
from flows.report.sections import ASKED, tables_of
from flows.report.table import Table, print_table
from tasks.runtime.errors import BadInput
from warehouse.connect import snapshot

MOST_MODELS = 20  # lines on a terminal; output into a file or a pipe has all of them
WIDE = 100  # characters from which on a figure has a digit more

Open = Annotated[
    bool,
    typer.Option("--open", help="open a sealed study, which is recorded: all its seeds are judged"),
]
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
    open_it: Open = False,
    as_json: AsJson = False,
) -> None:
    """Compare 4-bit with 8-bit experiments of a study: the answer, and a line a model."""
    chosen = (models, pairs, gates, rules, calibration, review, flips, fidelity)
    asked = [name for name, is_asked in zip(ASKED, chosen, strict=True) if is_asked]
    if open_it:
        refresh_warehouse()
        try:
            studied(study)
        except Sealed as sealed:
            open_claim(sealed.claim)
        else:
            raise BadInput("This study is not sealed; leave out --open.")
    if not as_json:
        print_study(console, study, prevalence, None if show_all else asked)
        return

    refresh_warehouse()
    details: list[str] = []
    with snapshot():
        try:
            studies = studied(study, prevalence)
        except Sealed as sealed:
            study, studies, details = sealed.claim.study, [], progress(sealed.claim)
        found_answer = answer(studies[0]) if studies else None
        sets = [
            {
                "set_digest": one.board[0].set_digest,
                "models": [vars(row) for row in one.models],
                "recipes": [vars(row) for row in one.recipes],
                "pairs": [vars(row) for row in one.pairs],
            }
            for one in studies
        ]
    print_json(
        {
            "study": studies[0].name if studies else study,
            "answer": found_answer.sentence if found_answer else None,
            "details": found_answer.details if found_answer else details,
            "test_sets": sets,
        }
    )


def print_study(
    console: Console,
    name: str | None = None,
    prevalence: float | None = None,
    asked: Collection[str] | None = (),
) -> None:
    """Print the comparison of a study, as `find_study` finds it.

    `asked`: what further tables are about; None: all of them. With a `prevalence`, at which ED
    precision and F2 are restated, the table that has them is printed too.
    """
    refresh_warehouse()
    # Of one moment, though a sweep may land results; printed outside, as writers wait meanwhile.
    with snapshot():
        try:
            studies = studied(name, prevalence)
        except Sealed as sealed:
            for line in progress(sealed.claim):
                print_line(console, line)
            return

        if studies:
            study = studies[0]
            if prevalence is not None and asked is not None:
                asked = ["models", *(name for name in asked if name != "models")]
            tables = tables_of(studies, asked)
            found_answer = answer(study)
            first = shown_first(console, study)
            command = "triage compare STUDY shows one"
            note = study_note(study.name, command) if study.name else None

    if not studies:
        of = f" of the study {name}" if name else ""
        print_line(
            console, f"The warehouse holds no finished experiment{of} yet. Next: triage sweep demo"
        )
        return

    print_answer(console, found_answer, first)
    if asked is None or "pairs" in asked:
        for line in found_answer.details:
            print_line(console, line)
    for table in tables:
        console.print()
        print_table(console, table, MOST_MODELS)

    if sets := ", ".join(one.set_name for one in studies[1:]):
        print_line(console, f"Judged before, on other cases (--all has their tables): {sets}.")
    if asked is not None:
        options = ", ".join(f"--{name}" for name in ASKED)
        print_line(console, f"For more: triage compare {study.name or ''} --all, or {options}.")
    print_line(console, disclaimer({row.set_digest for one in studies for row in one.board}))
    if note:
        print_line(console, note)


def shown_first(console: Console, study: StudyRows, brief: bool = False) -> Table:
    """The table of models with the baseline, as exact as the console is wide."""
    return first_table(study, digits=1 if console.width >= WIDE else 0, brief=brief)


def print_answer(console: Console, given: Answer, first: Table) -> None:
    """Print what is to be seen first: the answer, and the table of models with the baseline."""
    print_line(console, given.sentence, style="bold")
    print_table(console, first, MOST_MODELS, whole=True)
