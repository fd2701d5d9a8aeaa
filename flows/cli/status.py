"""`triage status`: the option of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

Everything = Annotated[
    bool,
    typer.Option("--all", help="list failed runs of earlier settings and trials of searches, too"),
]


def status(everything: Everything = False) -> None:
    """Show what is trained, scored and landed, with the result on the test set."""
    from flows.cli.status_report import print_status

    print_status(console, everything)
