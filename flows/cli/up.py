"""`triage up`: the options of the command; what it does is in `deployments/up.py`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.cli.terminal import console

Port = Annotated[
    int, typer.Option(min=1024, max=65535, metavar="PORT", help="port of the UI on 127.0.0.1")
]

Notify = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="TRIAGE_NOTIFY",
        help="an Apprise address that gets a message when a sweep or a gate fails; "
        "put one with a password in TRIAGE_NOTIFY",
    ),
]


Host = Annotated[
    str, typer.Option(metavar="ADDRESS", help="0.0.0.0: other machines may use it, with a password")
]


def up(port: Port = 4200, notify: Notify = None, host: Host = "127.0.0.1") -> None:
    """Start the Prefect server, its UI and workers on this machine, until Ctrl-C."""
    if auth := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        # What this command asks the server is asked as any other
        # client; before Prefect is imported.
        os.environ.setdefault("PREFECT_API_AUTH_STRING", auth)

    from deployments.up import up as start

    start(port, lambda line: console.print(line, soft_wrap=True), notify, host)
