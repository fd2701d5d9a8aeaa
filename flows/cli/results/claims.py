"""`triage claims`: the options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console

File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="claims of your own, as in warehouse/claims.toml"),
]


def claims(file: File = None) -> None:
    """Measure what the published study and the READMEs claim: verdicts, and the rows behind them."""
    from flows.cli.results.claims_report import print_claims

    print_claims(console, file)
