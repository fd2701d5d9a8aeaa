"""`triage doctor`: the option of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

Selftest = Annotated[
    bool, typer.Option("--selftest", help="compute on tiny models, too, and write a report")
]


def doctor(selftest: Selftest = False) -> None:
    """Check that this machine is ready: hardware, libraries, network, disk, server, warehouse."""
    from flows.cli.doctor_report import examine_machine

    raise typer.Exit(examine_machine(console, selftest))
