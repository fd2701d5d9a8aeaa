"""What `triage clean` prints and does."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flows.cli.terminal import print_line
from flows.report.figures import file_size
from flows.report.table import ReportTable, print_table
from tasks.removal import RemovedFolder, refuse_while_working, remove
from tasks.runtime.errors import BadInput
from tasks.runtime.home import check_home, home
from tasks.unused import prunable
from warehouse.references import referred_to

HOURS = {"h": 1, "d": 24}
NAMED = 3  # folders of a kind that its row names


def prune_cache(console: Console, least_age: str, only_unreferenced: bool, dry_run: bool) -> None:
    """Remove what is not needed from TRIAGE_HOME, or say what would go.

    Raises BadInput for a time that is none, Locked while something works in the home.
    """
    age = seconds_of(least_age)
    check_home()
    root = home()
    if not dry_run:
        refuse_while_working(root)

    referred = referred_to(root / "landing")
    parts = list(prunable(root, referred, time.time() - age, only_unreferenced))
    if not parts:
        print_line(console, f"Nothing unneeded in {root} has been unused for {least_age}.")
        return

    print_table(console, _table(root, parts, dry_run))
    if dry_run:
        print_line(console, "Nothing was removed. To remove it, add --yes.")
        return

    remove(parts)
    print_line(console, f"Removed: {file_size(sum(part.size for part in parts))}.")


def seconds_of(duration: str) -> float:
    """`30d` or `12h` in seconds. Raises BadInput for anything else, and for less than an hour."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hd])", duration)
    if match is None:
        raise BadInput(
            f"--older {duration!r} is no time: days or hours, from 1h on, such as 30d or 12h."
        )
    return int(match[1]) * HOURS[match[2]] * 3600.0


def _table(root: Path, parts: Sequence[RemovedFolder], dry_run: bool) -> ReportTable:
    """A row for each kind: how many folders, their bytes, and the first of their names."""
    rows = []
    for kind in dict.fromkeys(part.kind for part in parts):
        of_kind = [part for part in parts if part.kind == kind]
        names = [str(part.folder.relative_to(root)) for part in of_kind[:NAMED]]
        more = len(of_kind) - len(names)
        name_lines = "\n".join([*names, f"and {more} more"] if more else names)
        size = sum(part.size for part in of_kind)
        rows.append((kind, str(len(of_kind)), f"{size:,}", name_lines))

    total = sum(part.size for part in parts)
    title = f"{'Would go' if dry_run else 'Goes'}: {file_size(total)} of {root}"
    return ReportTable(title, ("what", "folders", "bytes", "which"), tuple(rows))
