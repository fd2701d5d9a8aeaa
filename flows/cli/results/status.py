"""`triage status`: the options of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

Everything = Annotated[
    bool,
    typer.Option("--all", help="list failed runs of earlier settings and trials of searches, too"),
]
Watch = Annotated[bool, typer.Option("--watch", help="go on showing it, until Ctrl-C")]
AsJson = Annotated[
    bool, typer.Option("--json", help="print a JSON array, an object per experiment")
]


def status(show_all: Everything = False, watch: Watch = False, as_json: AsJson = False) -> None:
    """Show what is trained, scored and landed, with the result on the test set."""
    from flows.cli.results.status_report import print_json, print_status
    from flows.cli.results.status_watch import watch_status

    if watch:
        watch_status(console, show_all, as_json)
    elif as_json:
        print_json(show_all)
    else:
        print_status(console, show_all)
