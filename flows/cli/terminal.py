"""The consoles of the command line, and an option that several commands share."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

WITHOUT_TERMINAL = 140  # columns of output into a file or a pipe, unless COLUMNS says otherwise


def _width() -> int | None:
    """None leaves the width to rich, which takes COLUMNS, else that of the terminal."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return None
    return WITHOUT_TERMINAL


console = Console(highlight=False, markup=False, width=_width())
errors = Console(stderr=True, highlight=False, markup=False)

Prevalence = Annotated[
    float | None,
    typer.Option(help="restate precision and F2 at this share of emergencies, e.g. 0.1"),
]


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print prose: wrapped between words on a terminal, one line in a file or a pipe."""
    console.print(text, style=style, soft_wrap=not console.is_terminal)
