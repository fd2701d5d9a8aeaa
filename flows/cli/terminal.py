"""The consoles of the command line, and options that several commands share."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

# Where output is a file or a pipe there is no width to fit: tables get what they need.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)


errors = Console(stderr=True, highlight=False, markup=False)


Prevalence = Annotated[
    float | None, typer.Option(help="restate precision and F2 at this share of emergencies")
]
