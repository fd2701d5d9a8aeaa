"""Runs a sweep from the command line: live progress, then the comparison and the next command to type."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

if "PREFECT_LOGGING_LEVEL" not in os.environ:  # before Prefect: the live display says it better; the UI gets all
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")

import flows.settings  # noqa: F401

from rich.console import Console

from deployments.up import interrupted_by_signals
from flows.display import live
from flows.report import print_comparison
from flows.selection import Selection
from flows.servers import start_temporary_server
from tasks.progress import Event, listeners
from tasks.runtime.errors import BadInput, SourceUnavailable
from warehouse.connect import warehouse_path


def run_sweep(console: Console, selection: Selection, grid: str, *narrowing: Any) -> int:
    """Run the sweep flow in this process; returns the exit code (1 if an experiment failed by itself).

    Raises BadInput if all that failed did so for what the user must mend.
    """
    console.print(f"Sweep {selection.grid.name}: {len(selection.cells)} experiments. Starting Prefect ...")
    from flows.sweep import sweep

    with interrupted_by_signals():
        start_temporary_server()
        with live(console, len(selection.cells)), collected_failures() as failures:
            overrides, models, bits, recipes, limit = narrowing
            state = sweep(grid, overrides, models, bits, recipes, limit, return_state=True)
    if warehouse_path().exists():
        print_comparison(console, [spec.cell_id for spec in selection.cells], short=True)
    if state.is_completed():
        console.print(f"{state.message}: {warehouse_path()}")
        console.print('Next: triage sql "SELECT * FROM quantization_comparison"')
        return 0
    if failures and all(isinstance(error, (BadInput, SourceUnavailable)) for error in failures):
        raise BadInput(" ".join(dict.fromkeys(str(error) for error in failures)))
    console.print(f"Not everything finished. {state.message}", style="bold red")
    console.print("Next: mend what the messages say, then type the same command again; finished experiments are kept.")
    return 1


@contextlib.contextmanager
def collected_failures() -> Iterator[list[Exception]]:
    """The errors of the experiments that fail while the block runs."""
    failures: list[Exception] = []

    def on_event(title: str, event: Event) -> None:
        if event["event"] == "failed":
            failures.append(event["error"])

    listeners.append(on_event)
    try:
        yield failures
    finally:
        listeners.remove(on_event)
