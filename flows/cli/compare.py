"""`triage compare`: the options of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import Prevalence, console

Everything = Annotated[
    bool, typer.Option("--all", help="print every table: gates, rules, calibration, flips, ...")
]


def compare(prevalence: Prevalence = None, everything: Everything = False) -> None:
    """Compare 4-bit with 8-bit experiments: headline, leaderboard and pairs."""
    from flows.cli.compare_report import print_comparison

    print_comparison(console, prevalence=prevalence, short=not everything)
