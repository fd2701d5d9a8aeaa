"""`triage gates EXPERIMENT`: the options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import Prevalence, console

Experiment = Annotated[
    str, typer.Argument(help="a cell, training or evaluation id, or the beginning of one")
]
ShowText = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="print the texts of missed cases, read from this file"),
]


def gates(
    experiment: Experiment, show_text: ShowText = None, prevalence: Prevalence = None
) -> None:
    """Show an experiment's safety gates, and the emergencies that it missed."""
    from flows.cli.results.gates_report import print_gates

    print_gates(console, experiment, show_text, prevalence)
