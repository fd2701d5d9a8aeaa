"""`triage compare`: the options of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import Prevalence, console

Everything = Annotated[
    bool, typer.Option("--all", help="print every table: gates, rules, calibration, flips, ...")
]


Study = Annotated[
    str | None, typer.Argument(help="name of a study; without it, the study of the last sweep")
]


def compare(
    study: Study = None, prevalence: Prevalence = None, everything: Everything = False
) -> None:
    """Compare 4-bit with 8-bit experiments of a study: headline, leaderboard and pairs."""
    from flows.cli.compare_report import print_study

    print_study(console, study, prevalence=prevalence, short=not everything)
