"""`triage doctor`: the option of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console

Selftest = Annotated[
    bool, typer.Option("--selftest", help="compute on tiny models, too, and write a report")
]


Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="write the self-test's report to FILE, to send it in: it names no user, host or folder",
    ),
]


def doctor(selftest: Selftest = False, json: Json = None) -> None:
    """Check that this machine is ready: hardware, libraries, network, disk, server, warehouse."""
    from flows.cli.machine.doctor_report import examine_machine

    raise typer.Exit(examine_machine(console, selftest, json))
