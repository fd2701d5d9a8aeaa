"""`triage up`: the option of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

Port = Annotated[
    int, typer.Option(min=1024, max=65535, metavar="PORT", help="port of the UI on 127.0.0.1")
]


def up(port: Port = 4200) -> None:
    """Start the Prefect server, its UI and a worker on this machine, until Ctrl-C."""
    from deployments.up import up as start

    start(port, lambda line: console.print(line, soft_wrap=True))
