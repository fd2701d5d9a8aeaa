"""The consoles of the command line, and what several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments.interruptions import INTERRUPTED as INTERRUPTED

WITHOUT_TERMINAL = 140  # columns of output into a file or a pipe, unless COLUMNS says otherwise


def _width() -> int | None:
    """None leaves the width to rich, which takes COLUMNS, else that of the terminal."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return None
    return WITHOUT_TERMINAL


# Without markup, which rich sees in square brackets: names, paths and texts may hold them.
console = Console(highlight=False, markup=False, width=_width())
errors = Console(stderr=True, highlight=False, markup=False)

Prevalence = Annotated[
    float | None,
    typer.Option(help="restate precision and F2 at this share of emergencies, e.g. 0.1"),
]


# What a terminal obeys: control characters but tab and line feed, and marks of direction.
_CONTROL = [code for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"]
_DIRECTION = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
ESCAPED_IN_JSON = {code: f"\\u{code:04x}" for code in _CONTROL + _DIRECTION}
_SHOWN = ESCAPED_IN_JSON | {code: f"\\x{code:02x}" for code in _CONTROL}


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: an escape character becomes `\\x1b`."""
    return text.translate(_SHOWN)


def print_error(sentence: str) -> None:
    """The sentence with which a command ends, on standard error."""
    errors.print(f"triage: {printable(sentence)}", style="bold red", soft_wrap=True)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print prose: wrapped between words on a terminal, one line in a file or a pipe."""
    console.print(text, style=style, soft_wrap=not console.is_terminal)


def refuse_existing(path: Path) -> None:
    """Raise BadInput unless a new file can be made at `path`, the value of --output."""
    from tasks.runtime.errors import BadInput

    if os.path.lexists(path):
        raise BadInput(f"{path} is there already and stays as it is; give --output another name.")
    if not path.parent.is_dir():
        raise BadInput(
            f"There is no folder {path.parent}; create it, or give --output another name."
        )


def print_answer(console: Console, lines: Iterable[str]) -> None:
    """Print the lines of an answer, each on its own."""
    for line in lines:
        print_line(console, line, style="bold")
