"""Runs a sweep from the command line: live progress, then the comparison and the next command to type."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")  # before Prefect: the live display says it better
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")

import flows.settings  # noqa: F401

from rich.console import Console

from flows.display import live
from flows.report import print_comparison
from flows.selection import Selection
from warehouse.connect import warehouse_path


def run_sweep(console: Console, selection: Selection, grid: str, *narrowing: Any) -> int:
    """Run the sweep flow in this process; returns the exit code (1 if an experiment failed)."""
    console.print(f"Sweep {selection.grid.name}: {len(selection.cells)} experiments. Starting Prefect ...")
    from flows.sweep import sweep

    with live(console, len(selection.cells)):
        overrides, models, bits, recipes, limit = narrowing
        state = sweep(grid, overrides, models, bits, recipes, limit, return_state=True)
    cells = [spec.cell_id for spec in selection.cells]
    print_comparison(console, cells)
    if state.is_completed():
        console.print(f"{state.message}: {warehouse_path()}")
        console.print('Next: triage sql "SELECT * FROM quantization_comparison"')
        return 0
    console.print(f"Not everything finished. {state.message}", style="bold red")
    console.print("Next: mend what the messages say, then type the same command again; finished experiments are kept.")
    return 1
