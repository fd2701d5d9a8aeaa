"""Whether prose is wrapped between words, or left to whoever reads it."""

from __future__ import annotations

import os

from rich.console import Console


def has_width(console: Console) -> bool:
    """Whether its width is that of a reader: a terminal's, or what COLUMNS asks for. In other files
    and pipes a sentence stays on one line.
    """
    return console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
