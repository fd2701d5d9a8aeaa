"""`triage forget DATA`: the options of the command."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

Data = Annotated[
    str,
    typer.Argument(help="a data set: its name, name-digest or digest, or a grid that names it"),
]
Yes = Annotated[bool, typer.Option("--yes", help="remove it; without this, only say what would go")]


def forget(data: Data, yes: Yes = False) -> None:
    """Remove the texts, prefixes, adapters and scores that came from a data set."""
    from flows.cli.storage.forget_report import forget_data

    forget_data(console, data, yes)
