"""`triage warehouse ...`: a new warehouse from what has landed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flows.cli.terminal import console, errors, print_line

if TYPE_CHECKING:
    from warehouse.load import LoadReport

warehouse = typer.Typer(no_args_is_help=True, help="The file with the results of all sweeps.")
AGAIN = (
    "run the sweep or the benchmark that made them once more; a sweep writes them from its scores "
    "and trains nothing"
)


@warehouse.callback()
def _group() -> None:
    """Keeps `rebuild` a word of its own while it is the only command."""


@warehouse.command()
def rebuild() -> None:
    """Fill a new warehouse from the landing files; the old file is kept under another name."""
    from tasks.runtime.errors import BadInput
    from tasks.runtime.store import home
    from warehouse.connect import warehouse_path
    from warehouse.load import rebuild
    from warehouse.place import check_replaceable

    landing = home() / "landing"
    if not any(landing.glob("*/manifest.json")):
        raise BadInput(f"There are no landing files in {landing}; run a sweep, e.g. triage sweep.")
    check_replaceable(warehouse_path())
    report = rebuild(landing)
    _print_report(report, str(warehouse_path()))
    raise typer.Exit(1 if report.refused else 0)


def _print_report(report: LoadReport, path: str) -> None:
    folders = (
        "1 landing folder" if len(report.loaded) == 1 else f"{len(report.loaded)} landing folders"
    )
    print_line(console, f"The warehouse has been rebuilt from {folders}: {path}")
    if report.aside is not None:
        print_line(console, f"The file that was there before is now {report.aside}")
    for id, reason in report.refused.items():
        print_line(errors, f"Not in it: {id}. {reason}")
    if report.refused:
        print_line(errors, f"To make these results again: {AGAIN}")
