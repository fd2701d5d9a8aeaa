"""`triage status --watch`: the table again and again, until it is interrupted."""

from __future__ import annotations

import contextlib
import time

import rich.live
from rich.console import Console

from flows.cli.status_lines import status_lines
from flows.cli.status_report import NOTHING, status_table
from tasks.runtime.errors import BadInput

WATCH_SECONDS = 2.0


def watch_status(console: Console, show_all: bool, as_json: bool) -> None:
    """Draw the table of `triage status` every WATCH_SECONDS until Ctrl-C.

    Raises BadInput without a terminal and with --json.
    """
    if as_json or not console.is_terminal:
        raise BadInput(
            "--watch draws a table on a terminal; in a script call triage status --json again and "
            "again."
        )

    with contextlib.suppress(KeyboardInterrupt), rich.live.Live(console=console) as display:
        while True:
            lines = status_lines()
            display.update(
                status_table(lines, console.width, show_all) if lines else NOTHING, refresh=True
            )
            time.sleep(WATCH_SECONDS)
