"""`triage clean`: removes what no result refers to and nobody has used for long; how any command
removes folders of a home: it says what would go, and removes it where it is told to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console, print_line
from flows.report.figures import file_size
from flows.report.table import Table, print_table
from tasks.removable import unneeded
from tasks.runtime.errors import BadInput
from tasks.runtime.home import check_home, home
from tasks.runtime.store import bytes_below, refuse_while_working, remove
from warehouse.landing import referred_to

SECONDS = {"h": 3600.0, "d": 86400.0}

Older = Annotated[
    str, typer.Option(help="remove only what has been unused this long, e.g. 30d or 12h")
]
Unreferenced = Annotated[
    bool,
    typer.Option("--unreferenced", help="remove only prefixes of models that no result refers to"),
]
Yes = Annotated[bool, typer.Option("--yes", help="remove it; without this, only say what would go")]


def clean(older: Older = "30d", unreferenced: Unreferenced = False, yes: Yes = False) -> None:
    """Remove stored models, prefixes, adapters and cases that no result refers to."""
    age = seconds_of(older)
    check_home()
    root = home()
    folders = unneeded(root, referred_to(root / "landing"), time.time() - age, unreferenced)
    if not folders:
        print_line(console, f"Nothing unneeded in {root} has been unused for {older}.")
        return

    remove_if_told(root, folders, yes)


def seconds_of(duration: str) -> float:
    """`30d` or `12h` in seconds. Raises BadInput for anything else, and for less than an hour."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hd])", duration)
    if match is None:
        raise BadInput(
            f"--older {duration!r} is no time: days or hours, from 1h on, such as 30d or 12h."
        )
    return int(match[1]) * SECONDS[match[2]]


def remove_if_told(
    root: Path, folders: Sequence[Path], yes: bool, notes: Sequence[str] = ()
) -> None:
    """Print a row for each place of a home that folders go from, and `notes`; remove them if `yes`.

    Raises Locked, before anything is removed, while anything works in the home.
    """
    if yes:
        refuse_while_working(root)

    places: dict[str, dict[str, int]] = {}
    for folder in folders:
        place, name = str(folder.relative_to(root)).split("/", 1)
        places.setdefault(place, {})[name] = bytes_below(folder)

    rows = [
        {
            "from": place,
            "folders": str(len(sizes)),
            "bytes": f"{sum(sizes.values()):,}",
            "which": "\n".join(sizes),
        }
        for place, sizes in places.items()
    ]
    total = file_size(sum(sum(sizes.values()) for sizes in places.values()))
    title = f"{'Goes' if yes else 'Would go'}: {total} of {root}"
    print_table(console, Table(title, rows))
    for note in notes:
        print_line(console, note)
    if not yes:
        print_line(console, "Nothing was removed. To remove it, add --yes.")
        return

    remove(folders)
    print_line(console, f"Removed: {total}.")
