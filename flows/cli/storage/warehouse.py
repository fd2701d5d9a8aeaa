"""`triage warehouse ...`: check it, fill it again, or from another machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.terminal import console, errors, print_line
from flows.report.figures import counted

if TYPE_CHECKING:
    from warehouse.load import LoadReport

warehouse = typer.Typer(
    no_args_is_help=True, help="Check, merge or rebuild the file with all results."
)
AGAIN = (
    "run the sweep or the benchmark that made them once more; a sweep writes them from its scores "
    "and trains nothing"
)


@warehouse.command()
def check() -> None:
    """Check migrations and audits; the exit code is 1 where the warehouse is not sound."""
    from flows.cli.storage.warehouse_check import print_check

    raise typer.Exit(0 if print_check(console) else 1)


@warehouse.command()
def merge(
    folder: Annotated[Path, typer.Argument(help="the other machine's home, or its folder landing")],
) -> None:
    """Take over the results of another machine; what is here stays."""
    from tasks.runtime.home import home
    from warehouse.load import load_all
    from warehouse.merge import merge

    report = merge(folder, home() / "landing")
    loaded = load_all(home() / "landing")
    print_line(console, _merged(len(report.additions), len(report.present)))
    if report.differing:
        print_line(console, f"Another version is here and stays: {', '.join(report.differing)}")

    refusals = {**loaded.refused, **report.refused}
    for id, reason in refusals.items():
        print_line(errors, f"Not taken over: {id}. {reason}")
    raise typer.Exit(1 if refusals else 0)


def _merged(taken_count: int, present_count: int) -> str:
    folders = counted(taken_count, "landing folder")
    return (
        f"{folders} {_were(taken_count)} taken over and loaded; "
        f"{present_count} {_were(present_count)} here already."
    )


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


@warehouse.command()
def rebuild() -> None:
    """Fill a new warehouse from the landing files; the old file is kept under another name."""
    from tasks.runtime.errors import BadInput
    from tasks.runtime.home import home
    from warehouse.connect import warehouse_path
    from warehouse.place import check_replaceable
    from warehouse.rebuild import rebuild

    landing = home() / "landing"
    if not any(landing.glob("*/manifest.json")):
        raise BadInput(f"There are no landing files in {landing}; run a sweep, e.g. triage sweep.")

    check_replaceable(warehouse_path())
    report = rebuild(landing)
    _print_report(report, str(warehouse_path()))
    raise typer.Exit(1 if report.refused else 0)


def _print_report(report: LoadReport, path: str) -> None:
    folders = counted(len(report.loaded), "landing folder")
    print_line(console, f"The warehouse has been rebuilt from {folders}: {path}")
    if report.aside is not None:
        print_line(console, f"The file that was there before is now {report.aside}")

    for id, reason in report.refused.items():
        print_line(errors, f"Not in it: {id}. {reason}")

    if report.refused:
        print_line(errors, f"To make these results again: {AGAIN}")
