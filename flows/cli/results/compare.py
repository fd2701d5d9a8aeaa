"""`triage compare`: the options of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import Prevalence, console

Everything = Annotated[
    bool, typer.Option("--all", help="print every table: gates, rules, calibration, flips, ...")
]
Gates = Annotated[bool, typer.Option("--gates", help="also the gates of every experiment")]
Rules = Annotated[bool, typer.Option("--rules", help="also decision rules, confusion matrices")]
Calibration = Annotated[bool, typer.Option("--calibration", help="also calibration")]
Review = Annotated[bool, typer.Option("--review", help="also the review flag")]
Flips = Annotated[bool, typer.Option("--flips", help="also decisions that a precision changes")]
Fidelity = Annotated[bool, typer.Option("--fidelity", help="also what precision alone changes")]


Study = Annotated[
    str | None, typer.Argument(help="name of a study; without it, the study of the last sweep")
]


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
    from flows.cli.results.compare_report import print_study

    section_options = {
        "gates": gates,
        "rules": rules,
        "calibration": calibration,
        "review": review,
        "flips": flips,
        "fidelity": fidelity,
    }
    sections = (
        None if show_all else [name for name, is_asked in section_options.items() if is_asked]
    )
    print_study(console, study, prevalence=prevalence, sections=sections)
